package environ

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	valid "k8s.io/apimachinery/pkg/util/validation"
)

// Environment is what a container begins with.
type Environment struct {
	// Vars are NAME=value, each name once, in the order in which the container names
	// them first: those of envFrom (by name within a source) before those of env.
	Vars          []string
	Command, Args []string

	// Skipped tells of names that no variable can have, for an event with the reason
	// InvalidEnvironmentVariableNames. The container starts without them.
	Skipped []string

	values map[string]string
}

// Resolve makes the environment of a container. Variables of env may refer to those
// of envFrom and to those of env that stand before them.
func Resolve(ctx context.Context, pod *corev1.Pod, c *corev1.Container, facts *Facts, from Objects) (*Environment, error) {
	e := &Environment{values: map[string]string{}}
	var order []string
	set := func(name, value string) error {
		if strings.IndexByte(value, 0) >= 0 {
			return fmt.Errorf("the value of %s has a zero byte: %w", name, ErrInvalid)
		}
		if _, again := e.values[name]; !again {
			order = append(order, name)
		}
		e.values[name] = value
		return nil
	}
	for i := range c.EnvFrom {
		if err := e.whole(ctx, pod.Namespace, &c.EnvFrom[i], from, set); err != nil {
			return nil, fmt.Errorf("envFrom: %w", err)
		}
	}
	for i := range c.Env {
		v := &c.Env[i]
		value, there, err := e.valueOf(ctx, pod, c, v, facts, from)
		if err == nil && there {
			err = set(v.Name, value)
		}
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", v.Name, err)
		}
	}
	for _, name := range order {
		e.Vars = append(e.Vars, name+"="+e.values[name])
	}
	e.Command, e.Args = e.expandAll(c.Command), e.expandAll(c.Args)
	return e, nil
}

// whole takes all keys of a secret or a config map.
func (e *Environment) whole(ctx context.Context, namespace string, s *corev1.EnvFromSource, from Objects, set func(name, value string) error) error {
	data, what, err := dataOf(ctx, namespace, s, from)
	if err != nil {
		return err
	}
	var bad []string
	for _, key := range slices.Sorted(maps.Keys(data)) {
		name := s.Prefix + key
		if len(valid.IsRelaxedEnvVarName(name)) > 0 {
			bad = append(bad, name)
			continue
		}
		if err := set(name, data[key]); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if len(bad) > 0 {
		e.Skipped = append(e.Skipped, fmt.Sprintf("Keys [%s] of the envFrom %s are skipped, as no variable can have such a name", strings.Join(bad, ", "), what))
	}
	return nil
}

func dataOf(ctx context.Context, namespace string, s *corev1.EnvFromSource, from Objects) (data map[string]string, what string, err error) {
	switch {
	case s.ConfigMapRef != nil:
		m, err := ConfigMap(ctx, from, namespace, s.ConfigMapRef.Name, s.ConfigMapRef.Optional)
		if err != nil || m == nil {
			return nil, "", err
		}
		return m.Data, "config map " + namespace + "/" + m.Name, nil
	case s.SecretRef != nil:
		secret, err := Secret(ctx, from, namespace, s.SecretRef.Name, s.SecretRef.Optional)
		if err != nil || secret == nil {
			return nil, "", err
		}
		return textOf(secret.Data), "secret " + namespace + "/" + secret.Name, nil
	}
	return nil, "", nil
}

func textOf(data map[string][]byte) map[string]string {
	text := make(map[string]string, len(data))
	for key, value := range data {
		text[key] = string(value)
	}
	return text
}

// valueOf is the value of one variable, and whether there is one.
func (e *Environment) valueOf(
	ctx context.Context, pod *corev1.Pod, c *corev1.Container, v *corev1.EnvVar, facts *Facts, from Objects,
) (value string, there bool, err error) {
	s := v.ValueFrom
	switch {
	case v.Value != "" || s == nil:
		return e.Expand(v.Value), true, nil
	case s.FieldRef != nil:
		value, err = Field(pod, s.FieldRef.FieldPath, facts)
		return value, true, err
	case s.ResourceFieldRef != nil:
		value, err = Resource(pod, c, s.ResourceFieldRef, facts)
		return value, true, err
	case s.ConfigMapKeyRef != nil:
		r := s.ConfigMapKeyRef
		m, err := ConfigMap(ctx, from, pod.Namespace, r.Name, r.Optional)
		if err != nil || m == nil {
			return "", false, err
		}
		return keyOf(m.Data, "config map", pod.Namespace, r.Name, r.Key, r.Optional)
	case s.SecretKeyRef != nil:
		r := s.SecretKeyRef
		secret, err := Secret(ctx, from, pod.Namespace, r.Name, r.Optional)
		if err != nil || secret == nil {
			return "", false, err
		}
		bytes, there, err := keyOf(secret.Data, "secret", pod.Namespace, r.Name, r.Key, r.Optional)
		return string(bytes), there, err
	}
	return "", false, fmt.Errorf("its source is of an unknown kind: %w", ErrInvalid)
}

func keyOf[T any](data map[string]T, what, namespace, name, key string, optional *bool) (value T, there bool, err error) {
	value, there = data[key]
	if !there && !truth(optional) {
		return value, false, fmt.Errorf("key %s of %s %s/%s: %w", key, what, namespace, name, ErrMissing)
	}
	return value, there, nil
}

func (e *Environment) expandAll(texts []string) []string {
	if texts == nil {
		return nil
	}
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = e.Expand(text)
	}
	return all
}

// Expand replaces each $(NAME) by the variable. One that there is not stays as it is;
// $$ becomes $ and begins nothing.
func (e *Environment) Expand(text string) string {
	return expand(text, func(name string) string {
		if value, ok := e.values[name]; ok {
			return value
		}
		return "$(" + name + ")"
	})
}

// ExpandAll is Expand for where a variable that there is not is an error: a subPathExpr.
func (e *Environment) ExpandAll(text string) (string, error) {
	var missing []string
	expanded := expand(text, func(name string) string {
		value, ok := e.values[name]
		if !ok {
			missing = append(missing, name)
		}
		return value
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("variable %s: %w", strings.Join(missing, ", "), ErrMissing)
	}
	return expanded, nil
}

// ExpandStatic replaces references in the command of a probe, which knows no other
// variables than those whose values stand in the pod itself, as they stand there. As
// in Kubernetes, one that is taken from elsewhere is empty.
func ExpandStatic(c *corev1.Container, command []string) []string {
	e := &Environment{values: make(map[string]string, len(c.Env))}
	for i := range c.Env {
		e.values[c.Env[i].Name] = c.Env[i].Value
	}
	return e.expandAll(command)
}
