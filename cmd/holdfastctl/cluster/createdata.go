package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

// dataFlags say what a ConfigMap or Secret holds.
type dataFlags struct {
	madeFlags
	literals, files, envFiles []string
}

func (f *dataFlags) declare(cmd *cobra.Command) {
	f.madeFlags.declare(cmd)
	fs := cmd.Flags()
	fs.StringArrayVar(&f.literals, "from-literal", nil, "KEY=VALUE")
	fs.StringSliceVar(&f.files, "from-file", nil, "[KEY=]FILE, or a folder with one file for each key")
	fs.StringSliceVar(&f.envFiles, "from-env-file", nil, "file of lines KEY=VALUE")
}

// data reads all that the flags name.
func (f *dataFlags) data() (map[string][]byte, error) {
	data := map[string][]byte{}
	put := func(key string, value []byte) error {
		if _, twice := data[key]; twice {
			return usage("cannot add key %q: it is there already", key)
		}
		data[key] = value
		return nil
	}
	for _, l := range f.literals {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return nil, usage("--from-literal wants KEY=VALUE") // Not what it got: that may be secret.
		}
		if err := put(key, []byte(value)); err != nil {
			return nil, err
		}
	}
	for _, name := range f.files {
		if err := fromFile(name, put); err != nil {
			return nil, err
		}
	}
	for _, name := range f.envFiles {
		if err := fromEnvFile(name, put); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func fromFile(name string, put func(string, []byte) error) error {
	key, path, ok := strings.Cut(name, "=")
	if !ok {
		key, path = "", name
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("--from-file %s: %w", name, err)
	}
	if !info.IsDir() {
		if key == "" {
			key = filepath.Base(path)
		}
		return readInto(key, path, put)
	}
	if key != "" {
		return usage("--from-file %s: a folder has a key for each of its files: leave %s= out", name, key)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			if err := readInto(e.Name(), filepath.Join(path, e.Name()), put); err != nil {
				return err
			}
		}
	}
	return nil
}

func readInto(key, path string, put func(string, []byte) error) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return put(key, text)
}

func fromEnvFile(name string, put func(string, []byte) error) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || key == "" {
			return fmt.Errorf("%s:%d: a line is KEY=VALUE", name, i+1)
		}
		if err := put(key, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) createConfigMapCommand() *cobra.Command {
	var f dataFlags
	cmd := &cobra.Command{
		Use: "configmap NAME [--from-literal=KEY=VALUE] [--from-file=[KEY=]FILE] [--from-env-file=FILE]", Aliases: []string{"cm"}, Short: "Creates a ConfigMap",
		RunE: s.connected(func(ctx context.Context, args []string) error {
			name, err := nameOf(args)
			if err != nil {
				return err
			}
			data, err := f.data()
			if err != nil {
				return err
			}
			o := &corev1.ConfigMap{}
			o.Name = name
			for key, value := range data { //tidy:ordered into maps
				if utf8.Valid(value) {
					o.Data = with(o.Data, key, string(value))
				} else {
					o.BinaryData = with(o.BinaryData, key, value)
				}
			}
			return s.create(ctx, &f.madeFlags, o)
		}),
	}
	f.declare(cmd)
	return cmd
}

func with[V any](m map[string]V, key string, value V) map[string]V {
	if m == nil {
		m = map[string]V{}
	}
	m[key] = value
	return m
}

func (s *session) createSecretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "secret generic NAME", Short: "Creates a Secret",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("create secret %s: there is generic; others are made with -f", args[0])
			}
			return usage("create secret generic NAME: say the type of the secret")
		},
	}
	var f dataFlags
	var kind string
	generic := &cobra.Command{
		Use: "generic NAME [--from-literal=KEY=VALUE] [--from-file=[KEY=]FILE] [--from-env-file=FILE]", Short: "Creates a Secret of any names and values",
		RunE: s.connected(func(ctx context.Context, args []string) error {
			name, err := nameOf(args)
			if err != nil {
				return err
			}
			o := &corev1.Secret{Type: corev1.SecretType(kind)}
			o.Name = name
			if o.Data, err = f.data(); err != nil {
				return err
			}
			return s.create(ctx, &f.madeFlags, o)
		}),
	}
	f.declare(generic)
	generic.Flags().StringVar(&kind, "type", "Opaque", "type of the secret")
	cmd.AddCommand(generic)
	return cmd
}
