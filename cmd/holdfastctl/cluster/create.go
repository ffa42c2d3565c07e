package cluster

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
)

func (s *session) createCommand() *cobra.Command {
	var f writeFlags
	cmd := &cobra.Command{
		Use:   "create -f FILE|FOLDER|-  |  create KIND NAME",
		Short: "Creates objects out of manifests, or simple ones from flags",
		Args:  cobra.ArbitraryArgs,
		RunE: s.connected(func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return usage("create %s: simple objects are made of deployment, namespace, configmap and secret; others with -f", args[0])
			}
			if err := f.check(nil); err != nil {
				return err
			}
			all, err := s.read(&f.files)
			if err != nil {
				return err
			}
			return s.each(all, func(m *api.Manifest) error { return s.makeOne(ctx, &f.dry, f.form, m.Object) })
		}),
	}
	f.declare(cmd)
	cmd.AddCommand(s.createDeploymentCommand(), s.createNamespaceCommand(), s.createConfigMapCommand(), s.createSecretCommand())
	return cmd
}

// made are the flags of commands that make one object.
type madeFlags struct {
	dry  dryRun
	form string
}

func (f *madeFlags) declare(cmd *cobra.Command) {
	f.dry.declare(cmd)
	cmd.Flags().StringVarP(&f.form, "output", "o", "", "print what was written: json, yaml, name")
}

// create checks and makes one object that flags describe.
func (s *session) create(ctx context.Context, f *madeFlags, o api.Object) error {
	if err := checkDone(f.form); err != nil {
		return err
	}
	if err := f.dry.check(); err != nil {
		return err
	}
	if api.KindOf(o).Namespaced {
		o.SetNamespace(s.home)
	}
	s.warn(api.Warnings(o)...)
	return s.makeOne(ctx, &f.dry, f.form, o)
}

func nameOf(args []string) (string, error) {
	if len(args) != 1 {
		return "", usage("exactly one NAME is required, got %d", len(args))
	}
	return args[0], nil
}

type deploymentFlags struct {
	madeFlags
	images   []string
	replicas int32
	port     int32
	wait     bool
}

func (s *session) createDeploymentCommand() *cobra.Command {
	var f deploymentFlags
	cmd := &cobra.Command{
		Use:     "deployment NAME --image=IMAGE [--replicas=N] [--port=PORT] [--wait] [-- COMMAND ARG...]",
		Aliases: []string{"deploy"},
		Short:   "Creates a Deployment",
	}
	cmd.RunE = s.connected(func(ctx context.Context, args []string) error {
		var command []string
		if at := cmd.ArgsLenAtDash(); at >= 0 {
			args, command = args[:at], args[at:]
		}
		name, err := nameOf(args)
		if err != nil {
			return err
		}
		d, err := f.deployment(name, command)
		if err != nil {
			return err
		}
		if err := s.create(ctx, &f.madeFlags, d); err != nil || !f.wait || f.dry.mode != "none" {
			return err
		}
		return s.rolloutStatus(ctx, target{api.Deployment, name}, &rolloutFlags{watch: true})
	})
	f.declare(cmd)
	fs := cmd.Flags()
	fs.StringSliceVar(&f.images, "image", nil, "image of the container; several make several")
	fs.Int32VarP(&f.replicas, "replicas", "r", 1, "how many pods")
	fs.Int32Var(&f.port, "port", 0, "port that the container listens on")
	fs.BoolVar(&f.wait, "wait", false, "until all its pods are available")
	return cmd
}

func (f *deploymentFlags) deployment(name string, command []string) (*appsv1.Deployment, error) {
	if len(f.images) == 0 {
		return nil, usage("required flag --image: what shall run")
	}
	if len(f.images) > 1 && command != nil {
		return nil, usage("a command goes with one --image only")
	}
	labels := map[string]string{"app": name}
	d := &appsv1.Deployment{}
	d.Name, d.Labels = name, labels
	d.Spec.Replicas = &f.replicas
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	d.Spec.Template.Labels = labels
	var names []string
	for _, image := range f.images {
		c := corev1.Container{Name: containerName(image), Image: image, Command: command}
		for slices.Contains(names, c.Name) {
			c.Name += "-x"
		}
		names = append(names, c.Name)
		if f.port != 0 {
			c.Ports = []corev1.ContainerPort{{ContainerPort: f.port}}
		}
		d.Spec.Template.Spec.Containers = append(d.Spec.Template.Spec.Containers, c)
	}
	return d, nil
}

// containerName is the last word of an image: registry/team/web:1 is web.
func containerName(image string) string {
	name, _, _ := strings.Cut(path.Base(image), "@")
	name, _, _ = strings.Cut(name, ":")
	name = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name)), "-")
	if name == "" {
		return "main"
	}
	return name
}

func (s *session) createNamespaceCommand() *cobra.Command {
	var f madeFlags
	cmd := &cobra.Command{
		Use: "namespace NAME", Aliases: []string{"ns"}, Short: "Creates a Namespace",
		RunE: s.connected(func(ctx context.Context, args []string) error {
			name, err := nameOf(args)
			if err != nil {
				return err
			}
			o := &corev1.Namespace{}
			o.Name = name
			return s.create(ctx, &f, o)
		}),
	}
	f.declare(cmd)
	return cmd
}
