package api

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Named are the keys of the Secrets and ConfigMaps that a pod names.
func Named(p *corev1.Pod) []string {
	var n names
	n.namespace = p.Namespace
	for i := range p.Spec.ImagePullSecrets {
		n.add(Secret, p.Spec.ImagePullSecrets[i].Name)
	}
	for i := range p.Spec.Volumes {
		n.addVolume(&p.Spec.Volumes[i])
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			n.addContainer(&list[i])
		}
	}
	return n.keys
}

type names struct {
	namespace string
	keys      []string
}

func (n *names) add(k *Kind, name string) {
	if name != "" && !strings.Contains(name, "/") {
		n.keys = append(n.keys, k.Key(n.namespace, name))
	}
}

func (n *names) addVolume(v *corev1.Volume) {
	if v.Secret != nil {
		n.add(Secret, v.Secret.SecretName)
	}
	if v.ConfigMap != nil {
		n.add(ConfigMap, v.ConfigMap.Name)
	}
	if v.Projected == nil {
		return
	}
	for _, s := range v.Projected.Sources {
		if s.Secret != nil {
			n.add(Secret, s.Secret.Name)
		}
		if s.ConfigMap != nil {
			n.add(ConfigMap, s.ConfigMap.Name)
		}
	}
}

func (n *names) addContainer(c *corev1.Container) {
	for _, from := range c.EnvFrom {
		if from.SecretRef != nil {
			n.add(Secret, from.SecretRef.Name)
		}
		if from.ConfigMapRef != nil {
			n.add(ConfigMap, from.ConfigMapRef.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if e.ValueFrom.SecretKeyRef != nil {
			n.add(Secret, e.ValueFrom.SecretKeyRef.Name)
		}
		if e.ValueFrom.ConfigMapKeyRef != nil {
			n.add(ConfigMap, e.ValueFrom.ConfigMapKeyRef.Name)
		}
	}
}
