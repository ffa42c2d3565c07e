package api

import (
	"path"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	valid "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// volumes returns the names.
func (p *problems) volumes(volumes []corev1.Volume, at *field.Path) map[string]bool {
	names := unique{}
	for i := range volumes {
		v, at := &volumes[i], at.Index(i)
		if p.required(at.Child("name"), v.Name, "") {
			p.invalid(at.Child("name"), v.Name, valid.IsDNS1123Label(v.Name))
			names.check(p, at.Child("name"), v.Name)
		}
		p.volume(&v.VolumeSource, at)
	}
	return names
}

func (p *problems) volume(v *corev1.VolumeSource, at *field.Path) {
	// Sources that are refused are refused by their rows; they are no second fault here.
	p.absent(sourcesOf(v) > 1, at, "a volume has one source")
	switch {
	case v.EmptyDir != nil:
		at := at.Child("emptyDir")
		optional(p, at.Child("medium"), v.EmptyDir.Medium, corev1.StorageMediumMemory)
		if v.EmptyDir.SizeLimit != nil {
			p.quantity(at.Child("sizeLimit"), *v.EmptyDir.SizeLimit)
		}
		if mode := v.EmptyDir.Mode; mode != nil && (*mode < 0 || *mode > 0o1777) {
			p.add(field.Invalid(at.Child("mode"), *mode, "must be from 0 to 01777 (in decimal: 1023)"))
		}
	case v.HostPath != nil:
		p.hostPath(v.HostPath, at.Child("hostPath"))
	case v.Secret != nil:
		at := at.Child("secret")
		p.required(at.Child("secretName"), v.Secret.SecretName, "")
		p.files(at, v.Secret.DefaultMode, v.Secret.Items)
	case v.ConfigMap != nil:
		at := at.Child("configMap")
		p.required(at.Child("name"), v.ConfigMap.Name, "")
		p.files(at, v.ConfigMap.DefaultMode, v.ConfigMap.Items)
	case v.DownwardAPI != nil:
		at := at.Child("downwardAPI")
		p.mode(at.Child("defaultMode"), v.DownwardAPI.DefaultMode)
		p.downward(at, v.DownwardAPI.Items)
	case v.Projected != nil:
		p.projected(v.Projected, at.Child("projected"))
	}
}

func sourcesOf(v *corev1.VolumeSource) int {
	n := 0
	for _, source := range reflect.ValueOf(v).Elem().Fields() {
		if !source.IsNil() {
			n++
		}
	}
	return n
}

func (p *problems) hostPath(h *corev1.HostPathVolumeSource, at *field.Path) {
	if p.required(at.Child("path"), h.Path, "") {
		if !path.IsAbs(h.Path) || slices.Contains(strings.Split(h.Path, "/"), "..") {
			p.add(field.Invalid(at.Child("path"), h.Path, "must be absolute and without .."))
		}
	}
	if h.Type != nil {
		optional(p, at.Child("type"), *h.Type, corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory, corev1.HostPathFileOrCreate,
			corev1.HostPathFile, corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev)
	}
}

func (p *problems) projected(v *corev1.ProjectedVolumeSource, at *field.Path) {
	p.mode(at.Child("defaultMode"), v.DefaultMode)
	for i := range v.Sources {
		s, at := &v.Sources[i], at.Child("sources").Index(i)
		if s.ServiceAccountToken == nil && s.ClusterTrustBundle == nil && s.PodCertificate == nil {
			p.one(at, "secret, configMap, downwardAPI", s.Secret != nil, s.ConfigMap != nil, s.DownwardAPI != nil)
		}
		if s.Secret != nil {
			p.required(at.Child("secret", "name"), s.Secret.Name, "")
			p.files(at.Child("secret"), nil, s.Secret.Items)
		}
		if s.ConfigMap != nil {
			p.required(at.Child("configMap", "name"), s.ConfigMap.Name, "")
			p.files(at.Child("configMap"), nil, s.ConfigMap.Items)
		}
		if s.DownwardAPI != nil {
			p.downward(at.Child("downwardAPI"), s.DownwardAPI.Items)
		}
	}
}

func (p *problems) files(at *field.Path, mode *int32, items []corev1.KeyToPath) {
	p.mode(at.Child("defaultMode"), mode)
	for i, item := range items {
		at := at.Child("items").Index(i)
		p.required(at.Child("key"), item.Key, "")
		p.filePath(at.Child("path"), item.Path)
		p.mode(at.Child("mode"), item.Mode)
	}
}

func (p *problems) downward(at *field.Path, items []corev1.DownwardAPIVolumeFile) {
	for i, item := range items {
		at := at.Child("items").Index(i)
		p.filePath(at.Child("path"), item.Path)
		p.mode(at.Child("mode"), item.Mode)
		p.one(at, "fieldRef, resourceFieldRef", item.FieldRef != nil, item.ResourceFieldRef != nil)
		if item.FieldRef != nil {
			p.fieldRef(item.FieldRef, at.Child("fieldRef"), true)
		}
		if r := item.ResourceFieldRef; r != nil {
			p.required(at.Child("resourceFieldRef", "containerName"), r.ContainerName, "a file belongs to no container")
			p.resourceRef(r, at.Child("resourceFieldRef"))
		}
	}
}

func (p *problems) mode(at *field.Path, mode *int32) {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		p.add(field.Invalid(at, *mode, "must be from 0 to 0777 (in decimal: 511)"))
	}
}

// filePath checks where a file of a volume is shown.
func (p *problems) filePath(at *field.Path, name string) {
	if !p.required(at, name, "") {
		return
	}
	p.relative(at, name)
	if strings.HasPrefix(path.Clean(name), "..") && !slices.Contains(strings.Split(name, "/"), "..") {
		p.add(field.Invalid(at, name, "must not begin with ..: such names are the volume's own"))
	}
}

// relative checks a path that must not lead out of its volume.
func (p *problems) relative(at *field.Path, name string) {
	if path.IsAbs(name) || slices.Contains(strings.Split(name, "/"), "..") {
		p.add(field.Invalid(at, name, "must be relative and without .."))
	}
}

func (p *problems) env(c *corev1.Container, at *field.Path) {
	for i, e := range c.Env {
		at := at.Child("env").Index(i)
		if p.required(at.Child("name"), e.Name, "") {
			p.invalid(at.Child("name"), e.Name, valid.IsRelaxedEnvVarName(e.Name))
		}
		if e.ValueFrom != nil {
			if e.Value != "" {
				p.add(field.Invalid(at.Child("valueFrom"), "", "must not be there beside a value"))
			}
			p.envSource(e.ValueFrom, at.Child("valueFrom"))
		}
	}
	for i, e := range c.EnvFrom {
		at := at.Child("envFrom").Index(i)
		p.one(at, "configMapRef, secretRef", e.ConfigMapRef != nil, e.SecretRef != nil)
		if e.ConfigMapRef != nil {
			p.required(at.Child("configMapRef", "name"), e.ConfigMapRef.Name, "")
		}
		if e.SecretRef != nil {
			p.required(at.Child("secretRef", "name"), e.SecretRef.Name, "")
		}
	}
}

func (p *problems) envSource(v *corev1.EnvVarSource, at *field.Path) {
	if v.FileKeyRef == nil {
		p.one(at, "fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef",
			v.FieldRef != nil, v.ResourceFieldRef != nil, v.ConfigMapKeyRef != nil, v.SecretKeyRef != nil)
	}
	if v.FieldRef != nil {
		p.fieldRef(v.FieldRef, at.Child("fieldRef"), false)
	}
	if v.ResourceFieldRef != nil {
		p.resourceRef(v.ResourceFieldRef, at.Child("resourceFieldRef"))
	}
	if r := v.ConfigMapKeyRef; r != nil {
		p.required(at.Child("configMapKeyRef", "name"), r.Name, "")
		p.required(at.Child("configMapKeyRef", "key"), r.Key, "")
	}
	if r := v.SecretKeyRef; r != nil {
		p.required(at.Child("secretKeyRef", "name"), r.Name, "")
		p.required(at.Child("secretKeyRef", "key"), r.Key, "")
	}
}

var (
	bothFields = []string{"metadata.name", "metadata.namespace", "metadata.uid"}
	envFields  = []string{"spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
	fileFields = []string{"metadata.labels", "metadata.annotations"}
)

// fieldRef checks the field of a pod that a variable or a file shows.
func (p *problems) fieldRef(r *corev1.ObjectFieldSelector, at *field.Path, file bool) {
	known := append(slices.Clone(bothFields), envFields...)
	if file {
		known = append(slices.Clone(bothFields), fileFields...)
	}
	at = at.Child("fieldPath")
	name, key, subscript := strings.Cut(r.FieldPath, "['")
	if key, closed := strings.CutSuffix(key, "']"); subscript && closed && slices.Contains(fileFields, name) {
		p.invalid(at, r.FieldPath, valid.IsQualifiedName(strings.ToLower(key)))
		return
	}
	oneOf(p, at, r.FieldPath, known...)
}

func (p *problems) resourceRef(r *corev1.ResourceFieldSelector, at *field.Path) {
	oneOf(p, at.Child("resource"), r.Resource, "limits.cpu", "limits.memory", "limits.ephemeral-storage",
		"requests.cpu", "requests.memory", "requests.ephemeral-storage")
	if !r.Divisor.IsZero() {
		p.quantity(at.Child("divisor"), r.Divisor)
	}
}

func (p *problems) resources(r *corev1.ResourceRequirements, at *field.Path) {
	for name, q := range r.Limits {
		p.resource(name, q, at.Child("limits").Key(string(name)))
	}
	for name, q := range r.Requests {
		at := at.Child("requests").Key(string(name))
		p.resource(name, q, at)
		limit, limited := r.Limits[name]
		switch {
		case limited && q.Cmp(limit) > 0:
			p.add(field.Invalid(at, q.String(), "must be at most the limit, "+limit.String()))
		case !nativeResource(name) && (!limited || q.Cmp(limit) != 0):
			p.add(field.Invalid(at, q.String(), "must be equal to the limit: what is counted cannot be shared"))
		}
	}
}

func nativeResource(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage
}

func (p *problems) resource(name corev1.ResourceName, q resource.Quantity, at *field.Path) {
	p.quantity(at, q)
	if nativeResource(name) {
		return
	}
	if !strings.Contains(string(name), "/") {
		p.add(field.Invalid(at, name, "is none of cpu, memory, ephemeral-storage, and no name with a domain (example.com/thing)"))
		return
	}
	p.invalid(at, name, valid.IsQualifiedName(string(name)))
	if whole := q.DeepCopy(); !whole.RoundUp(0) {
		p.add(field.Invalid(at, q.String(), "must be a whole number"))
	}
}
