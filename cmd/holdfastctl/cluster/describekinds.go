package cluster

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-db/holdfast/kube/api"
)

// body is what stands between the head of a description and its events.
func (p *page) body(o api.Object, f *facts) {
	switch o := o.(type) {
	case *corev1.Pod:
		p.pod(o)
	case *corev1.Node:
		p.node(o, f.pods)
	case *appsv1.Deployment:
		p.deployment(o)
	case *appsv1.ReplicaSet:
		p.replicaSet(o)
	case *corev1.Service:
		p.service(o)
	case *corev1.Secret:
		p.field("Type", o.Type)
		p.table("Data", secretSizes(o), ": ")
	case *corev1.ConfigMap:
		p.configMap(o)
	case *corev1.Namespace:
		p.field("Status", o.Status.Phase)
	case *autoscalingv2.HorizontalPodAutoscaler:
		p.autoscaler(o)
	case *policyv1.PodDisruptionBudget:
		p.budget(o)
	default:
		p.rest(o)
	}
}

// rest is an object of a kind without a description of its own: its fields, as they
// are.
func (p *page) rest(o api.Object) {
	text, err := api.EncodeJSON(shown(o))
	if err != nil {
		p.line(err.Error())
		return
	}
	tree := map[string]any{}
	if err := yaml.Unmarshal(text, &tree); err != nil {
		p.line(err.Error())
		return
	}
	for _, name := range []string{"metadata", "kind", "apiVersion"} {
		delete(tree, name)
	}
	if text, err = yaml.Marshal(tree); err == nil {
		fmt.Fprintln(p.w, printableText(strings.TrimSuffix(string(text), "\n")))
	}
}

func (p *page) pod(o *corev1.Pod) {
	p.field("Priority", deref(o.Spec.Priority, 0))
	if o.Spec.PriorityClassName != "" {
		p.field("Priority Class Name", o.Spec.PriorityClassName)
	}
	node := orNone(o.Spec.NodeName)
	if o.Status.HostIP != "" {
		node += "/" + o.Status.HostIP
	}
	p.field("Node", node)
	if o.Status.StartTime != nil {
		p.time("Start Time", *o.Status.StartTime)
	}
	if o.DeletionTimestamp == nil {
		p.field("Status", o.Status.Phase)
	}
	if o.Status.Reason != "" {
		p.field("Reason", o.Status.Reason)
	}
	if o.Status.Message != "" {
		p.field("Message", o.Status.Message)
	}
	p.field("IP", o.Status.PodIP)
	if len(o.Spec.InitContainers) > 0 {
		p.containers("Init Containers:", o.Spec.InitContainers, o.Status.InitContainerStatuses)
	}
	p.containers("Containers:", o.Spec.Containers, o.Status.ContainerStatuses)
	if len(o.Status.Conditions) > 0 {
		p.under("Conditions:", func() {
			p.line("Type", "Status", "Reason", "Message")
			for _, c := range o.Status.Conditions {
				p.line(string(c.Type), string(c.Status), c.Reason, c.Message)
			}
		})
	}
	p.volumes(o.Spec.Volumes)
	p.field("QoS Class", orNone(string(o.Status.QOSClass)))
	p.table("Node-Selectors", o.Spec.NodeSelector, "=")
	p.list("Tolerations", tolerations(o.Spec.Tolerations))
}

func tolerations(list []corev1.Toleration) []string {
	var lines []string
	for _, t := range list {
		text := t.Key
		if t.Value != "" {
			text += "=" + t.Value
		}
		if t.Effect != "" {
			text += ":" + string(t.Effect)
		}
		if t.Operator == corev1.TolerationOpExists && t.Value == "" {
			text = strings.TrimSpace(text + " op=Exists")
		}
		if t.TolerationSeconds != nil {
			text += fmt.Sprintf(" for %ds", *t.TolerationSeconds)
		}
		lines = append(lines, text)
	}
	return lines
}

func (p *page) containers(title string, list []corev1.Container, statuses []corev1.ContainerStatus) {
	p.under(title, func() {
		for i := range list {
			c := &list[i]
			at := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == c.Name })
			var status *corev1.ContainerStatus
			if at >= 0 {
				status = &statuses[at]
			}
			p.under(c.Name+":", func() { p.container(c, status) })
		}
	})
}

func (p *page) container(c *corev1.Container, s *corev1.ContainerStatus) {
	if s != nil {
		p.field("Container ID", s.ContainerID)
	}
	p.field("Image", c.Image)
	var ports []string
	for _, port := range c.Ports {
		ports = append(ports, fmt.Sprintf("%d/%s", port.ContainerPort, port.Protocol))
	}
	p.field("Port", joined(ports, ", "))
	if len(c.Command) > 0 {
		p.list("Command", c.Command)
	}
	if len(c.Args) > 0 {
		p.list("Args", c.Args)
	}
	if s != nil {
		p.state("State", s.State)
		if s.LastTerminationState.Terminated != nil {
			p.state("Last State", s.LastTerminationState)
		}
		p.field("Ready", word(s.Ready))
		p.field("Restart Count", s.RestartCount)
	}
	p.quantities("Limits", c.Resources.Limits)
	p.quantities("Requests", c.Resources.Requests)
	p.list("Environment", environment(c))
	var mounts []string
	for _, m := range c.VolumeMounts {
		access := "rw"
		if m.ReadOnly {
			access = "ro"
		}
		mounts = append(mounts, fmt.Sprintf("%s from %s (%s)", m.MountPath, m.Name, access))
	}
	p.list("Mounts", mounts)
}

func word(is bool) string {
	if is {
		return "True"
	}
	return "False"
}

// environment is where variables come from: of Secrets never what they are.
func environment(c *corev1.Container) []string {
	var lines []string
	for _, e := range c.EnvFrom {
		if e.ConfigMapRef != nil {
			lines = append(lines, "(all of ConfigMap "+e.ConfigMapRef.Name+")")
		}
		if e.SecretRef != nil {
			lines = append(lines, "(all of Secret "+e.SecretRef.Name+")")
		}
	}
	for _, e := range c.Env {
		from := e.Value
		if v := e.ValueFrom; v != nil {
			switch {
			case v.SecretKeyRef != nil:
				from = fmt.Sprintf("<set to the key '%s' in secret '%s'>", v.SecretKeyRef.Key, v.SecretKeyRef.Name)
			case v.ConfigMapKeyRef != nil:
				from = fmt.Sprintf("<set to the key '%s' of config map '%s'>", v.ConfigMapKeyRef.Key, v.ConfigMapKeyRef.Name)
			case v.FieldRef != nil:
				from = "(" + v.FieldRef.FieldPath + ")"
			case v.ResourceFieldRef != nil:
				from = "(" + v.ResourceFieldRef.Resource + ")"
			}
		}
		lines = append(lines, e.Name+": "+from)
	}
	return lines
}

func (p *page) state(name string, s corev1.ContainerState) {
	switch {
	case s.Running != nil:
		p.field(name, "Running")
		p.depth++
		p.time("Started", s.Running.StartedAt)
		p.depth--
	case s.Terminated != nil:
		p.field(name, "Terminated")
		p.depth++
		if s.Terminated.Reason != "" {
			p.field("Reason", s.Terminated.Reason)
		}
		if s.Terminated.Message != "" {
			p.field("Message", s.Terminated.Message)
		}
		p.field("Exit Code", s.Terminated.ExitCode)
		p.time("Started", s.Terminated.StartedAt)
		p.time("Finished", s.Terminated.FinishedAt)
		p.depth--
	default:
		p.field(name, "Waiting")
		if s.Waiting != nil && s.Waiting.Reason != "" {
			p.depth++
			p.field("Reason", s.Waiting.Reason)
			if s.Waiting.Message != "" {
				p.field("Message", s.Waiting.Message)
			}
			p.depth--
		}
	}
}

func (p *page) quantities(name string, list corev1.ResourceList) {
	if len(list) == 0 {
		return
	}
	p.under(name+":", func() {
		var names []string
		for n := range list { //tidy:ordered sorted below
			names = append(names, string(n))
		}
		slices.Sort(names)
		for _, n := range names {
			q := list[corev1.ResourceName(n)]
			p.field(n, q.String())
		}
	})
}

func (p *page) volumes(list []corev1.Volume) {
	if len(list) == 0 {
		p.field("Volumes", "<none>")
		return
	}
	p.under("Volumes:", func() {
		for _, v := range list {
			what := "another kind of volume"
			switch {
			case v.EmptyDir != nil:
				what = "EmptyDir"
				if v.EmptyDir.Medium != "" {
					what += " (" + string(v.EmptyDir.Medium) + ")"
				}
			case v.HostPath != nil:
				what = "HostPath " + v.HostPath.Path
			case v.ConfigMap != nil:
				what = "ConfigMap " + v.ConfigMap.Name
			case v.Secret != nil:
				what = "Secret " + v.Secret.SecretName
			case v.PersistentVolumeClaim != nil:
				what = "PersistentVolumeClaim " + v.PersistentVolumeClaim.ClaimName
			case v.Projected != nil:
				what = "Projected"
			case v.DownwardAPI != nil:
				what = "DownwardAPI"
			}
			p.field(v.Name, what)
		}
	})
}

func (p *page) deployment(o *appsv1.Deployment) {
	p.field("Selector", selectorText(o.Spec.Selector))
	p.field("Replicas", fmt.Sprintf("%d desired | %d updated | %d total | %d available | %d unavailable",
		deref(o.Spec.Replicas, 1), o.Status.UpdatedReplicas, o.Status.Replicas, o.Status.AvailableReplicas, o.Status.UnavailableReplicas))
	p.field("StrategyType", o.Spec.Strategy.Type)
	p.field("MinReadySeconds", o.Spec.MinReadySeconds)
	if u := o.Spec.Strategy.RollingUpdate; u != nil && u.MaxUnavailable != nil && u.MaxSurge != nil {
		p.field("RollingUpdateStrategy", fmt.Sprintf("%s max unavailable, %s max surge", u.MaxUnavailable.String(), u.MaxSurge.String()))
	}
	if o.Spec.Paused {
		p.field("Paused", "True")
	}
	p.template(&o.Spec.Template)
	if len(o.Status.Conditions) > 0 {
		p.under("Conditions:", func() {
			p.line("Type", "Status", "Reason", "Message")
			for _, c := range o.Status.Conditions {
				p.line(string(c.Type), string(c.Status), c.Reason, c.Message)
			}
		})
	}
}

func (p *page) replicaSet(o *appsv1.ReplicaSet) {
	p.field("Selector", selectorText(o.Spec.Selector))
	p.field("Replicas", fmt.Sprintf("%d current / %d desired", o.Status.Replicas, deref(o.Spec.Replicas, 1)))
	p.field("Ready", o.Status.ReadyReplicas)
	p.template(&o.Spec.Template)
}

func (p *page) template(t *corev1.PodTemplateSpec) {
	p.under("Pod Template:", func() {
		p.table("Labels", t.Labels, "=")
		if len(t.Spec.InitContainers) > 0 {
			p.containers("Init Containers:", t.Spec.InitContainers, nil)
		}
		p.containers("Containers:", t.Spec.Containers, nil)
		p.volumes(t.Spec.Volumes)
		p.table("Node-Selectors", t.Spec.NodeSelector, "=")
		p.list("Tolerations", tolerations(t.Spec.Tolerations))
	})
}

func (p *page) service(o *corev1.Service) {
	p.field("Selector", labelText(o.Spec.Selector))
	p.field("Type", o.Spec.Type)
	p.field("IP", orNone(o.Spec.ClusterIP))
	if o.Spec.ExternalName != "" {
		p.field("External Name", o.Spec.ExternalName)
	}
	for _, port := range o.Spec.Ports {
		name := port.Name
		if name == "" {
			name = "<unset>"
		}
		p.line("Port:", name, fmt.Sprintf("%d/%s", port.Port, port.Protocol))
		p.line("TargetPort:", port.TargetPort.String()+"/"+string(port.Protocol))
		if port.NodePort != 0 {
			p.line("NodePort:", name, fmt.Sprintf("%d/%s", port.NodePort, port.Protocol))
		}
	}
	p.field("Session Affinity", o.Spec.SessionAffinity)
}

func (p *page) autoscaler(o *autoscalingv2.HorizontalPodAutoscaler) {
	p.field("Reference", o.Spec.ScaleTargetRef.Kind+"/"+o.Spec.ScaleTargetRef.Name)
	p.field("Metrics", metrics(o))
	p.field("Min replicas", deref(o.Spec.MinReplicas, 1))
	p.field("Max replicas", o.Spec.MaxReplicas)
	p.field("Replicas", fmt.Sprintf("%d current / %d desired", o.Status.CurrentReplicas, o.Status.DesiredReplicas))
	if len(o.Status.Conditions) > 0 {
		p.under("Conditions:", func() {
			p.line("Type", "Status", "Reason", "Message")
			for _, c := range o.Status.Conditions {
				p.line(string(c.Type), string(c.Status), c.Reason, c.Message)
			}
		})
	}
}

func (p *page) budget(o *policyv1.PodDisruptionBudget) {
	if o.Spec.MinAvailable != nil {
		p.field("Min available", o.Spec.MinAvailable.String())
	}
	if o.Spec.MaxUnavailable != nil {
		p.field("Max unavailable", o.Spec.MaxUnavailable.String())
	}
	p.field("Selector", selectorText(o.Spec.Selector))
	p.under("Status:", func() {
		p.field("Allowed disruptions", o.Status.DisruptionsAllowed)
		p.field("Current", o.Status.CurrentHealthy)
		p.field("Desired", o.Status.DesiredHealthy)
		p.field("Total", o.Status.ExpectedPods)
	})
}

// describeTemplate writes what pods are made of.
func describeTemplate(out io.Writer, t *corev1.PodTemplateSpec) {
	p := &page{w: tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)}
	p.template(t)
	p.w.Flush()
}
