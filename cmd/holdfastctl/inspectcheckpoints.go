package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/checkpoint"
)

func (c *ctl) inspectCheckpointsCommand() *cobra.Command {
	return c.inspectVerb("checkpoints", inspected{what: "folder", folder: true}, "Shows what a node keeps of its pods, and how they were last: the folder checkpoints in the --dir of a kubelet", func(_ context.Context, path string) error {
		s, err := checkpoint.Read(vfs.OS(), path)
		if err != nil {
			return err
		}
		if s.Node == nil && s.History == 0 && len(s.Pods)+len(s.Damaged)+len(s.Lost) == 0 {
			return fmt.Errorf("%s: no checkpoints in this folder: name the folder checkpoints in the --dir of a kubelet", path)
		}
		node := "none"
		if s.Node != nil {
			node = s.Node.Name
		}
		type head struct {
			Node    string `json:"node"`
			History string `json:"history"`
			Pods    int    `json:"pods"`
			Lost    int    `json:"lost"`
		}
		h := head{node, fmt.Sprintf("%016x", s.History), len(s.Pods), len(s.Lost)}
		if err := c.show(fmt.Sprintf("node %s, history %s, %d pods", h.Node, h.History, h.Pods), h); err != nil {
			return err
		}
		for _, p := range s.Pods {
			if err := c.showKept(p); err != nil {
				return err
			}
		}
		for _, d := range s.Damaged {
			if err := c.show(fmt.Sprintf("damaged %s: %v", d.File, d.Err), struct {
				Damaged string `json:"damaged"`
				Pod     string `json:"pod,omitempty"`
				Why     string `json:"why"`
			}{d.File, string(d.Pod), d.Err.Error()}); err != nil {
				return err
			}
		}
		switch {
		case len(s.Lost) > 0:
			return fmt.Errorf("no file tells what pod %s is (%d such pods): it goes on until the control plane tells the kubelet, or 'recover pods --prune' after a restore; "+
				"the files may go once it does not run", s.Lost[0], len(s.Lost))
		case len(s.Damaged) > 0:
			return fmt.Errorf("%d files cannot be read, the first is %s: %w; the kubelet puts them aside at its next start, and nothing else is to be done",
				len(s.Damaged), s.Damaged[0].File, s.Damaged[0].Err)
		}
		return nil
	})
}

// keptContainer is a container as its node knew it last.
type keptContainer struct {
	Name     string `json:"name"`
	Image    string `json:"image"`
	State    string `json:"state"`
	Ready    bool   `json:"ready"`
	Restarts int32  `json:"restarts"`
	Last     string `json:"last,omitempty"` // How it ended before.
}

// showKept prints a pod, its containers, and what keeps it from being ready.
func (c *ctl) showKept(p *corev1.Pod) error {
	ready, restarts, waits := 0, int32(0), []string{}
	var containers []keptContainer
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range list {
			s := &list[i]
			restarts += s.RestartCount
			k := keptContainer{s.Name, s.Image, stateWords(&s.State), s.Ready, s.RestartCount, ""}
			if s.LastTerminationState.Terminated != nil {
				k.Last = stateWords(&s.LastTerminationState)
			}
			containers = append(containers, k)
		}
	}
	for i := range p.Status.ContainerStatuses {
		if p.Status.ContainerStatuses[i].Ready {
			ready++
		}
	}
	for i := range p.Status.Conditions {
		if t := &p.Status.Conditions[i]; t.Status != corev1.ConditionTrue {
			waits = append(waits, string(t.Type))
		}
	}
	text := fmt.Sprintf("pod %s %s/%s %s, %d/%d ready, %d restarts", p.UID, p.Namespace, p.Name, p.Status.Phase, ready, len(p.Spec.Containers), restarts)
	if api.IsSingleton(p) {
		text += ", singleton"
	}
	if len(waits) > 0 {
		text += fmt.Sprintf(", not %v", waits)
	}
	for _, k := range containers {
		text += fmt.Sprintf("\n    %s %s: %s, %s, %d restarts", k.Name, k.Image, k.State, map[bool]string{true: "ready", false: "not ready"}[k.Ready], k.Restarts)
		if k.Last != "" {
			text += ", before: " + k.Last
		}
	}
	return c.show(text, struct {
		UID        string          `json:"uid"`
		Namespace  string          `json:"namespace"`
		Name       string          `json:"name"`
		Phase      string          `json:"phase"`
		Singleton  bool            `json:"singleton"`
		Ready      int             `json:"ready"`
		Restarts   int32           `json:"restarts"`
		Waits      []string        `json:"waits"` // Conditions that do not hold.
		Containers []keptContainer `json:"containers"`
	}{string(p.UID), p.Namespace, p.Name, string(p.Status.Phase), api.IsSingleton(p), ready, restarts, waits, containers})
}

func stateWords(s *corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running since " + s.Running.StartedAt.UTC().Format(time.RFC3339)
	case s.Terminated != nil:
		return fmt.Sprintf("ended %s, %s, exit code %d", s.Terminated.FinishedAt.UTC().Format(time.RFC3339), s.Terminated.Reason, s.Terminated.ExitCode)
	case s.Waiting != nil:
		return "waiting, " + s.Waiting.Reason
	}
	return "unknown"
}
