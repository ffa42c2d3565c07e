package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/kube/api"
)

func (s *session) apiResourcesCommand() *cobra.Command {
	var form string
	var namespaced, noHeaders bool
	cmd := &cobra.Command{Use: "api-resources", Short: "Lists the kinds of objects that there are"}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage("api-resources takes no arguments")
		}
		if form != "" && form != "name" && form != "wide" {
			return usage("-o %s: there are name and wide", form)
		}
		kinds := slices.Clone(api.Kinds)
		slices.SortStableFunc(kinds, func(a, b *api.Kind) int {
			return strings.Compare(groupOf(a)+"/"+a.Resource, groupOf(b)+"/"+b.Resource)
		})
		g := &grid{out: s.Out}
		if form != "name" && !noHeaders {
			g.add("NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND")
		}
		for _, k := range kinds {
			if cmd.Flags().Changed("namespaced") && k.Namespaced != namespaced {
				continue
			}
			if form == "name" {
				g.add(strings.TrimSuffix(k.Resource+"."+groupOf(k), "."))
				continue
			}
			g.add(k.Resource, strings.Join(k.Short, ","), k.APIVersion, fmt.Sprint(k.Namespaced), k.Name)
		}
		g.flush()
		return nil
	}
	fs := cmd.Flags()
	fs.StringVarP(&form, "output", "o", "", "form: name, wide")
	fs.BoolVar(&namespaced, "namespaced", true, "only kinds of namespaces, or with =false only the others")
	fs.BoolVar(&noHeaders, "no-headers", false, "without the line of column names")
	return cmd
}

func groupOf(k *api.Kind) string {
	group, _, ok := strings.Cut(k.APIVersion, "/")
	if !ok {
		return ""
	}
	return group
}

func (s *session) explainCommand() *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use:   "explain KIND[.FIELD...]",
		Short: "Tells of which type a field is, and whether this cluster honours it",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("name a kind or a field: explain pod.spec.containers")
			}
			return s.explainField(args[0], recursive)
		},
	}
	cmd.Flags().BoolVar(&recursive, "recursive", false, "all fields below it")
	return cmd
}

func (s *session) explainField(arg string, recursive bool) error {
	word, path, _ := strings.Cut(arg, ".")
	k, err := api.ByWord(word)
	if err != nil {
		return err
	}
	f, err := api.Field(k, path, recursive)
	if err != nil {
		return err
	}
	s.printf("KIND:       %s\nVERSION:    %s\n", k.Name, k.APIVersion)
	if path != "" {
		s.printf("FIELD:      %s <%s>\n", path, f.Type)
		if f.Known {
			s.printf("SUPPORT:    %s\n", support(f))
		}
	}
	if len(f.Below) == 0 {
		return nil
	}
	s.printf("\nFIELDS:\n")
	g := &grid{out: s.Out}
	s.fields(g, f.Below, "  ")
	g.flush()
	return nil
}

func (s *session) fields(g *grid, list []api.FieldDoc, indent string) {
	for _, f := range list {
		word := ""
		if f.Known {
			word = support(&f)
		}
		g.add(indent+f.Name, "<"+f.Type+">", word)
		s.fields(g, f.Below, indent+"  ")
	}
}

func support(f *api.FieldDoc) string {
	text := f.Support.String()
	if f.Note != "" {
		text += ": " + f.Note
	}
	for _, v := range f.Values {
		text += fmt.Sprintf("; %s is %s: %s", v.Value, v.Support, v.Note)
	}
	return text
}
