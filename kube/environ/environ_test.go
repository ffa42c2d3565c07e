package environ

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/objects"
)

// store holds secrets and config maps of the namespace ns.
type store struct {
	secrets, configMaps map[string]map[string]string
	broken              error // Of all reads.
}

func (s store) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	data, ok := s.secrets[name]
	if s.broken != nil || !ok || namespace != "ns" {
		return nil, s.failure(name)
	}
	o := &corev1.Secret{Data: map[string][]byte{}}
	o.Name = name
	for key, value := range data {
		o.Data[key] = []byte(value)
	}
	return o, nil
}

func (s store) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	data, ok := s.configMaps[name]
	if s.broken != nil || !ok || namespace != "ns" {
		return nil, s.failure(name)
	}
	o := &corev1.ConfigMap{Data: data}
	o.Name = name
	return o, nil
}

func (s store) failure(name string) error {
	if s.broken != nil {
		return s.broken
	}
	return fmt.Errorf("%q: %w", name, objects.ErrNotFound)
}

var (
	facts = &Facts{HostIPs: []string{"10.0.0.1"}, PodIPs: []string{"10.1.0.5", "fd00::5"},
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse("1900m"), "memory": resource.MustParse("2Gi"), "ephemeral-storage": resource.MustParse("10G")}}
	kept = store{
		secrets:    map[string]map[string]string{"s": {"user": "anna", "a=b": "x", "zero": "a\x00b"}, "clean": {"TOKEN": "t"}},
		configMaps: map[string]map[string]string{"m": {"B": "from m", "A": "from m", "dotted.name": "d"}, "n": {"A": "from n"}},
	}
)

func pod() *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID = "ns", "web", types.UID("u-1")
	p.Labels, p.Annotations = map[string]string{"b": "2", "a": "1"}, map[string]string{"example.com/Key": "line\n\"quoted\""}
	p.Spec.NodeName, p.Spec.ServiceAccountName = "n1", "default"
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{"cpu": resource.MustParse("200m"), "memory": resource.MustParse("500Mi")},
		Limits:   corev1.ResourceList{"cpu": resource.MustParse("1500m"), "hugepages-2Mi": resource.MustParse("4Mi")},
	}}, {Name: "other"}}
	p.Spec.InitContainers = []corev1.Container{{Name: "init"}}
	return p
}

func field(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func fromResource(container, name, divisor string) *corev1.EnvVarSource {
	r := &corev1.ResourceFieldSelector{ContainerName: container, Resource: name}
	if divisor != "" {
		r.Divisor = resource.MustParse(divisor)
	}
	return &corev1.EnvVarSource{ResourceFieldRef: r}
}

func fromMap(name, key string, optional bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional}}
}

func fromSecret(name, key string, optional bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional}}
}

func allOfMap(prefix, name string, optional bool) corev1.EnvFromSource {
	return corev1.EnvFromSource{Prefix: prefix, ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: &optional}}
}

func allOfSecret(prefix, name string, optional bool) corev1.EnvFromSource {
	return corev1.EnvFromSource{Prefix: prefix, SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: &optional}}
}

func TestVariablesComeFromAllSourcesInOrder(t *testing.T) {
	p := pod()
	c := &p.Spec.Containers[0]
	c.EnvFrom = []corev1.EnvFromSource{allOfMap("", "m", false), allOfMap("", "n", false), allOfSecret("S_", "clean", false), allOfMap("", "absent", true), allOfSecret("", "absent", true)}
	c.Env = []corev1.EnvVar{
		{Name: "PLAIN", Value: "v"},
		{Name: "B", Value: "mine, was $(B)"},
		{Name: "CHAIN", Value: "$(PLAIN)-$(A)-$(LATER)-$$(PLAIN)"},
		{Name: "LATER", Value: "later"},
		{Name: "PLAIN", Value: "$(PLAIN)2"},
		{Name: "EMPTY"},
		{Name: "KEY", ValueFrom: fromMap("m", "B", false)},
		{Name: "PASS", ValueFrom: fromSecret("s", "user", false)},
		{Name: "NONE", ValueFrom: fromMap("m", "absent", true)},
		{Name: "NOBODY", ValueFrom: fromSecret("absent", "x", true)},
		{Name: "A", ValueFrom: fromMap("absent", "x", true)},
		{Name: "USES", Value: "$(PASS) $(NONE) $(EMPTY)."},
	}
	c.Command, c.Args = []string{"run", "$(PLAIN)"}, []string{"--of=$(KEY)", "$(ABSENT)", "$$(PLAIN)", ""}
	e, err := Resolve(context.Background(), p, c, facts, kept)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"A=from n", "B=mine, was from m", "dotted.name=d", "S_TOKEN=t", "PLAIN=v2", "CHAIN=v-from n-$(LATER)-$(PLAIN)", "LATER=later",
		"EMPTY=", "KEY=from m", "PASS=anna", "USES=anna $(NONE) .",
	}
	if !slices.Equal(e.Vars, want) {
		t.Errorf("\n%q, not\n%q", e.Vars, want)
	}
	if !slices.Equal(e.Command, []string{"run", "v2"}) || !slices.Equal(e.Args, []string{"--of=from m", "$(ABSENT)", "$(PLAIN)", ""}) {
		t.Errorf("%q %q", e.Command, e.Args)
	}
	if len(e.Skipped) > 0 {
		t.Errorf("skipped %q", e.Skipped)
	}
	if c.Command[1] != "$(PLAIN)" {
		t.Error("the pod was changed")
	}
	empty, err := Resolve(context.Background(), p, &p.Spec.Containers[1], facts, kept)
	if err != nil || empty.Vars != nil || empty.Command != nil || empty.Args != nil {
		t.Errorf("%+v %v", empty, err)
	}
}

func TestNamesThatNoVariableCanHaveAreSkippedAndTold(t *testing.T) {
	p := pod()
	c := &p.Spec.Containers[0]
	c.EnvFrom = []corev1.EnvFromSource{allOfSecret("X ", "s", false)}
	kept := store{secrets: map[string]map[string]string{"s": {"user": "anna", "a=b": "x", "ü": "y"}}}
	e, err := Resolve(context.Background(), p, c, facts, kept)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(e.Vars, e.Skipped); got != "[X user=anna] [Keys [X a=b, X ü] of the envFrom secret ns/s are skipped, as no variable can have such a name]" {
		t.Error(got)
	}
}

func TestWhatIsMissingIsNamedAndNoValueIs(t *testing.T) {
	for _, test := range []struct {
		env     corev1.EnvVarSource
		all     *corev1.EnvFromSource
		want    string
		is      error
		secrets store
	}{
		{env: *fromMap("absent", "k", false), want: "env X: config map ns/absent: not there", is: ErrMissing},
		{env: *fromMap("m", "absent", false), want: "env X: key absent of config map ns/m: not there", is: ErrMissing},
		{env: *fromSecret("absent", "k", false), want: "env X: secret ns/absent: not there", is: ErrMissing},
		{env: *fromSecret("s", "absent", false), want: "env X: key absent of secret ns/s: not there", is: ErrMissing},
		{env: *fromSecret("s", "zero", false), want: "env X: the value of X has a zero byte: cannot be a variable", is: ErrInvalid},
		{env: *field("status.phase"), want: "env X: field status.phase of a pod: cannot be a variable", is: ErrInvalid},
		{env: *field("metadata.labels['a"), want: "env X: field metadata.labels['a of a pod: cannot be a variable", is: ErrInvalid},
		{env: *field("spec['a']"), want: "env X: field spec['a'] of a pod: cannot be a variable", is: ErrInvalid},
		{env: *fromResource("absent", "limits.cpu", ""), want: "env X: resource limits.cpu of container absent, which the pod does not have: cannot be a variable", is: ErrInvalid},
		{env: *fromResource("", "limits.gpu", ""), want: "env X: resource limits.gpu: cannot be a variable", is: ErrInvalid},
		{env: *fromResource("", "claims.cpu", ""), want: "env X: resource claims.cpu: cannot be a variable", is: ErrInvalid},
		{env: corev1.EnvVarSource{}, want: "env X: its source is of an unknown kind: cannot be a variable", is: ErrInvalid},
		{all: new(allOfMap("", "absent", false)), want: "envFrom: config map ns/absent: not there", is: ErrMissing},
		{all: new(allOfSecret("", "absent", false)), want: "envFrom: secret ns/absent: not there", is: ErrMissing},
		{all: new(allOfSecret("", "s", false)), want: "envFrom: secret ns/s: the value of zero has a zero byte: cannot be a variable", is: ErrInvalid},
		{env: *fromSecret("s", "user", true), secrets: store{broken: objects.ErrDenied}, want: "env X: secret ns/s: denied", is: objects.ErrDenied},
	} {
		p := pod()
		c := &p.Spec.Containers[0]
		if test.all != nil {
			c.EnvFrom = []corev1.EnvFromSource{*test.all}
		} else {
			c.Env = []corev1.EnvVar{{Name: "X", ValueFrom: &test.env}}
		}
		from := kept
		if test.secrets.broken != nil {
			from = test.secrets
		}
		_, err := Resolve(context.Background(), p, c, facts, from)
		if !errors.Is(err, test.is) || err.Error() != test.want {
			t.Errorf("%v, not %s", err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "anna") {
			t.Errorf("a value is told: %v", err)
		}
	}
}

func TestFieldsOfThePod(t *testing.T) {
	for path, want := range map[string]string{
		"metadata.name": "web", "metadata.namespace": "ns", "metadata.uid": "u-1", "metadata.labels['a']": "1", "metadata.labels['none']": "",
		"metadata.annotations['example.com/Key']": "line\n\"quoted\"", "metadata.labels": "a=\"1\"\nb=\"2\"",
		"metadata.annotations": `example.com/Key="line\n\"quoted\""`, "spec.nodeName": "n1", "spec.serviceAccountName": "default",
		"status.hostIP": "10.0.0.1", "status.hostIPs": "10.0.0.1", "status.podIP": "10.1.0.5", "status.podIPs": "10.1.0.5,fd00::5",
	} {
		if got, err := Field(pod(), path, facts); err != nil || got != want {
			t.Errorf("%s is %q, not %q; %v", path, got, want, err)
		}
	}
	if got, err := Field(pod(), "status.podIP", &Facts{}); got != "" || err != nil {
		t.Errorf("an address that is not known: %q %v", got, err)
	}
}

func TestResourcesAreCountedInTheirDivisorRoundedUp(t *testing.T) {
	p := pod()
	absurd := corev1.ResourceList{"memory": resource.MustParse("1e999999999")}
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "absurd", Resources: corev1.ResourceRequirements{Requests: absurd}})
	for _, test := range []struct{ container, name, divisor, want string }{
		{"", "limits.cpu", "", "2"},
		{"", "limits.cpu", "1m", "1500"},
		{"", "limits.cpu", "0", "2"},
		{"", "requests.cpu", "1m", "200"},
		{"", "requests.cpu", "", "1"},
		{"", "requests.memory", "", "524288000"},
		{"", "requests.memory", "1Mi", "500"},
		{"", "requests.memory", "1M", "525"},
		{"", "limits.memory", "1Gi", "2"}, // The node's.
		{"", "limits.ephemeral-storage", "1G", "10"},
		{"", "limits.hugepages-2Mi", "1Mi", "4"},
		{"", "requests.ephemeral-storage", "", "0"},
		{"other", "limits.cpu", "1m", "1900"}, // The node's.
		{"other", "requests.cpu", "1m", "0"},
		{"init", "limits.memory", "1Mi", "2048"},
		{"absurd", "requests.memory", "", "1" + strings.Repeat("0", 61)},
	} {
		s := fromResource(test.container, test.name, test.divisor)
		if got, err := Resource(p, &p.Spec.Containers[0], s.ResourceFieldRef, facts); err != nil || got != test.want {
			t.Errorf("%+v is %s; %v", test, got, err)
		}
	}
	if _, err := Resource(p, nil, fromResource("", "limits.cpu", "").ResourceFieldRef, facts); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if q := p.Spec.Containers[0].Resources.Limits; q.Cpu().String() != "1500m" {
		t.Error("the pod was changed")
	}
}

func TestReferencesAreReplacedAsInKubernetes(t *testing.T) {
	e := &Environment{values: map[string]string{"A": "a", "B": "$(A)", "E": "", "x y": "odd", "$(": "odder"}}
	for text, want := range map[string]string{
		"":           "",
		"plain":      "plain",
		"$(A)":       "a",
		"x$(A)y$(A)": "xaya",
		"$(B)":       "$(A)", // Not looked at again.
		"$(E)":       "",
		"$(NONE)":    "$(NONE)",
		"$$(A)":      "$(A)",
		"$$$(A)":     "$a",
		"$$$$(A)":    "$$(A)",
		"$":          "$",
		"$$":         "$",
		"a$":         "a$",
		"$A":         "$A",
		"${A}":       "${A}",
		"$(A":        "$(A",
		"$(":         "$(",
		"$()":        "$()",
		"$(A)(B)":    "a(B)",
		"$(x y)":     "odd",
		"$($()":      "odder",
		"$($(A))":    "$($(A))", // The name is "$(A".
		"$(A)$":      "a$",
		"$ü(A)":      "$ü(A)",
		"$x$(A)":     "$xa",
	} {
		if got := e.Expand(text); got != want {
			t.Errorf("%q becomes %q, not %q", text, got, want)
		}
	}
	if got, err := e.ExpandAll("logs/$(A)/$$(A)"); err != nil || got != "logs/a/$(A)" {
		t.Errorf("%q %v", got, err)
	}
	if got, err := e.ExpandAll("$(X)/$(A)/$(Y)"); !errors.Is(err, ErrMissing) || err.Error() != "variable X, Y: not there" {
		t.Errorf("%q %v", got, err)
	}
}

// FuzzExpand compares with a reader that goes character by character.
func FuzzExpand(f *testing.F) {
	for _, text := range []string{"$(A)$$(A)$(B", "$$$($(A))", "$", "$)($A"} {
		f.Add(text, "A", "value $(A)")
	}
	f.Fuzz(func(t *testing.T, text, name, value string) {
		e := &Environment{values: map[string]string{name: value}}
		if got, want := e.Expand(text), slowly(text, e.values); got != want {
			t.Errorf("%q becomes %q, not %q", text, got, want)
		}
		if !strings.Contains(text, "$") && e.Expand(text) != text {
			t.Error("a text without references was changed")
		}
	})
}

func slowly(text string, values map[string]string) string {
	var out []byte
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			out = append(out, text[i])
			continue
		}
		i++
		if text[i] != '(' {
			if text[i] != '$' {
				out = append(out, '$')
			}
			out = append(out, text[i])
			continue
		}
		end := i + 1
		for end < len(text) && text[end] != ')' {
			end++
		}
		if end == len(text) {
			out = append(out, '$', '(')
			continue
		}
		reference := text[i+1 : end]
		if value, ok := values[reference]; ok {
			out = append(out, value...)
		} else {
			out = append(out, text[i-1:end+1]...)
		}
		i = end
	}
	return string(out)
}

// FuzzResource divides quantities as they come: the answer is the least whole number
// of divisors that covers the quantity, to a thousandth.
func FuzzResource(f *testing.F) {
	for _, q := range []string{"1500m", "2Gi", "1e3", "0", "100n", "-5", "9223372036854775807", "1.5Ki"} {
		f.Add(q, "1m")
		f.Add("7Gi", q)
	}
	// Package resource itself takes for ever to read a large negative exponent.
	endless := regexp.MustCompile(`[eE]-[0-9]{4}`)
	f.Fuzz(func(t *testing.T, quantity, divisor string) {
		if endless.MatchString(quantity + " " + divisor) {
			return
		}
		q, err := resource.ParseQuantity(quantity)
		if err != nil || q.Sign() < 0 || len(quantity) > 64 {
			return
		}
		d, err := resource.ParseQuantity(divisor)
		if err != nil || d.Sign() < 0 || len(divisor) > 64 {
			return
		}
		p := pod()
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"memory": q}
		r := &corev1.ResourceFieldSelector{Resource: "requests.memory", Divisor: d}
		text, err := Resource(p, &p.Spec.Containers[0], r, facts)
		if err != nil {
			t.Fatal(err)
		}
		n, ok := new(big.Int).SetString(text, 10)
		if !ok || n.Sign() < 0 || (n.Sign() == 0) != q.IsZero() {
			t.Fatalf("%s in %s is %q", quantity, divisor, text)
		}
		if q.IsZero() {
			return
		}
		unit := thousandths(d)
		if d.IsZero() {
			unit = big.NewInt(1000)
		}
		all := thousandths(q)
		less := new(big.Int).Sub(n, big.NewInt(1))
		if new(big.Int).Mul(n, unit).Cmp(all) < 0 || less.Mul(less, unit).Cmp(all) >= 0 {
			t.Errorf("%s in %s is %s", quantity, divisor, text)
		}
	})
}

func TestAStaticCommandKnowsOnlyWhatStandsInThePod(t *testing.T) {
	c := &corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "$(B)"}, {Name: "F", ValueFrom: field("metadata.name")}}}
	command := []string{"$(A)", "$(F)", "$(NONE)"}
	if got := ExpandStatic(c, command); !slices.Equal(got, []string{"$(B)", "", "$(NONE)"}) {
		t.Errorf("%q", got)
	}
	if ExpandStatic(c, nil) != nil {
		t.Error("no command became one")
	}
}
