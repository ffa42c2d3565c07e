package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/kube/api"
)

// fileFlags name files of manifests.
type fileFlags struct {
	names     []string
	recursive bool
	kustomize string
}

func (f *fileFlags) declare(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringSliceVarP(&f.names, "filename", "f", nil, "files and folders of manifests; - is standard input")
	fs.BoolVarP(&f.recursive, "recursive", "R", false, "also the folders in folders")
	fs.StringVarP(&f.kustomize, "kustomize", "k", "", "not supported: build the manifests first")
	fs.Lookup("kustomize").Hidden = true
}

// read reads all manifests that are named, in the order in which they are applied:
// namespaces before what is in them. Nothing is returned where anything is wrong.
func (s *session) read(f *fileFlags) ([]api.Manifest, error) {
	if f.kustomize != "" {
		return nil, usage("-k: kustomizations are not built here; build them first and give the manifests with -f -")
	}
	if len(f.names) == 0 {
		return nil, usage("must specify one of -f: a file, a folder, or - for standard input")
	}
	var all []api.Manifest
	var problems []string
	for _, name := range f.names {
		files, err := expand(name, f.recursive)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			found, err := s.manifests(file)
			if err != nil {
				problems = append(problems, err.Error())
				continue
			}
			all = append(all, found...)
		}
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("nothing was sent:\n%s", strings.Join(problems, "\n"))
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no objects in %s", strings.Join(f.names, ", "))
	}
	for i := range all {
		s.warn(all[i].Warnings...)
		if err := s.place(&all[i]); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(all, func(a, b api.Manifest) int { return rank(a.Object) - rank(b.Object) })
	return all, nil
}

func rank(o api.Object) int { return slices.Index(api.Kinds, api.KindOf(o)) }

// place gives an object the namespace that is meant, unless it says one.
func (s *session) place(m *api.Manifest) error {
	if s.namespace == "" && m.Object.GetNamespace() != "" {
		return nil
	}
	return m.Place(s.home)
}

func (s *session) manifests(file string) ([]api.Manifest, error) {
	if file == "-" {
		return api.ReadManifests(s.In, "standard input")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return api.ReadManifests(f, file)
}

var manifestEnds = []string{".yaml", ".yml", ".json"}

// expand is the files that a name stands for.
func expand(name string, recursive bool) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		return nil, usage("%s: manifests are not fetched from the network; download it, look at it, and give the file", name)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("the path %q does not exist", name)
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		path := filepath.Join(name, e.Name())
		switch {
		case e.IsDir() && recursive:
			below, err := expand(path, true)
			if err != nil {
				return nil, err
			}
			files = append(files, below...)
		case !e.IsDir() && slices.Contains(manifestEnds, filepath.Ext(path)):
			files = append(files, path)
		}
	}
	if len(files) == 0 && !recursive {
		return nil, fmt.Errorf("folder %s holds no file that ends in %s; folders in it are read with -R", name, strings.Join(manifestEnds, ", "))
	}
	return files, nil
}

// dryRun is --dry-run: none, client or server.
type dryRun struct{ mode string }

func (d *dryRun) declare(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.mode, "dry-run", "none", "none; client: send nothing; server: have it checked, and not stored")
	cmd.Flags().Lookup("dry-run").NoOptDefVal = "client"
}

func (d *dryRun) check() error {
	if !slices.Contains([]string{"none", "client", "server"}, d.mode) {
		return usage("invalid dry-run value (%s): must be none, client or server", d.mode)
	}
	return nil
}

// note is what follows the word for what was done.
func (d *dryRun) note() string {
	return map[string]string{"client": " (dry run)", "server": " (server dry run)"}[d.mode]
}

func (d *dryRun) client() bool { return d.mode == "client" }
func (d *dryRun) server() bool { return d.mode == "server" }
