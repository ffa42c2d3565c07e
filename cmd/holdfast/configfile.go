package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// nested maps the groups of etcd's configuration file to flags: the prefix of
// their keys, and those keys that are not the rest of a flag's name.
var nested = map[string]struct {
	prefix string
	names  map[string]string
}{
	"client-transport-security": {"", map[string]string{
		"allowed-cn": "client-cert-allowed-cn", "allowed-hostname": "client-cert-allowed-hostname",
		"skip-client-san-verification": "peer-skip-client-san-verification", "crl-file": "client-crl-file",
	}},
	"peer-transport-security": {"peer-", map[string]string{
		"allowed-cn": "peer-cert-allowed-cn", "allowed-hostname": "peer-cert-allowed-hostname",
	}},
	"socket-options": {"socket-", nil},
	"discovery-config": {"discovery-", map[string]string{
		"dial-timeout": "discovery-dial-timeout", "request-timeout": "discovery-request-timeout",
		"keepalive-time": "discovery-keepalive-time", "keepalive-timeout": "discovery-keepalive-timeout",
	}},
}

// fromFile reads all settings from a configuration file. What the command line
// and the environment say beside it is ignored, as etcd does, and noted.
func fromFile(old *options, oldFlags *flag.FlagSet, environ []string, path string) (*options, *flag.FlagSet, map[string]bool, error) {
	beside, err := fromEnvironment(oldFlags, environ)
	if err != nil {
		old.warn("variable beside --config-file is ignored, and wrong", "error", err)
	}
	o := &options{failpoints: old.failpoints, warnings: old.warnings, configFile: path}
	fs := flagSet(o)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, nil, wrongSetting("--config-file: %w", err)
	}
	given, err := o.readFile(fs, data)
	if err != nil {
		return nil, nil, nil, wrongSetting("--config-file %s: %w", path, err)
	}
	delete(beside, "config-file")
	delete(beside, "failpoints-listen")
	if len(beside) > 0 {
		o.warn("flags and variables beside --config-file are ignored: put them into the file", "file", path, "ignored", slices.Sorted(maps.Keys(beside)))
	}
	return o, fs, given, nil
}

// readFile sets each flag that the file names.
func (o *options) readFile(fs *flag.FlagSet, data []byte) (map[string]bool, error) {
	asJSON, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	var top map[string]any
	d := json.NewDecoder(bytes.NewReader(asJSON))
	d.UseNumber() // Sizes do not fit into floating point.
	if err := d.Decode(&top); err != nil {
		return nil, fmt.Errorf("not a list of KEY: VALUE: %w", err)
	}
	given := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(top)) {
		group, ok := nested[key]
		if !ok {
			if err := o.setKey(fs, given, key, key, top[key]); err != nil {
				return nil, err
			}
			continue
		}
		inner, ok := top[key].(map[string]any)
		if !ok && top[key] != nil {
			return nil, fmt.Errorf("%s is not a group of KEY: VALUE", key)
		}
		for _, k := range slices.Sorted(maps.Keys(inner)) {
			name := group.names[k]
			if name == "" {
				name = group.prefix + k
			}
			if err := o.setKey(fs, given, name, key+"."+k, inner[k]); err != nil {
				return nil, err
			}
		}
	}
	return given, nil
}

// setKey sets the flag of a key. One that nobody knows is noted: etcd passes
// over it, and files carry keys of versions long gone.
func (o *options) setKey(fs *flag.FlagSet, given map[string]bool, name, key string, value any) error {
	f := fs.Lookup(name)
	if f == nil || name == "config-file" || name == "version" {
		var known []string
		fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
		o.warn("key of --config-file is not known and ignored", "key", key, "nearest", nearest(name, known))
		return nil
	}
	text, set, err := valueText(f.Value.(*setting).row, value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if !set {
		return nil
	}
	given[name] = true
	if err := fs.Set(name, text); err != nil {
		return fmt.Errorf("%s is %q: %w", key, text, err)
	}
	return nil
}

// valueText turns a value of a file into what one would write on the command
// line; set is false for one that says nothing.
func valueText(r *row, value any) (text string, set bool, err error) {
	switch v := value.(type) {
	case nil:
		return "", false, nil
	case string:
		return v, v != "", nil
	case bool:
		return fmt.Sprint(v), true, nil
	case json.Number:
		if r.kind == isDuration {
			n, err := v.Int64()
			if err != nil {
				return "", false, fmt.Errorf("%s is not a number of nanoseconds", v)
			}
			return time.Duration(n).String(), true, nil
		}
		return v.String(), true, nil
	case []any:
		var parts []string
		for _, item := range v {
			part, _, err := valueText(r, item)
			if err != nil {
				return "", false, err
			}
			parts = append(parts, part)
		}
		return strings.Join(parts, ","), len(parts) > 0, nil
	case map[string]any:
		if r.name != "feature-gates" && r.name != "log-rotation-config-json" {
			return "", false, fmt.Errorf("a group of KEY: VALUE stands where one value belongs")
		}
		return groupText(r, v)
	}
	return "", false, fmt.Errorf("%T stands where one value belongs", value)
}

// groupText is a group where the flag takes one text.
func groupText(r *row, v map[string]any) (string, bool, error) {
	if r.name == "log-rotation-config-json" {
		b, err := json.Marshal(v)
		return string(b), true, err
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(v)) {
		parts = append(parts, fmt.Sprintf("%s=%v", k, v[k]))
	}
	return strings.Join(parts, ","), len(parts) > 0, nil
}
