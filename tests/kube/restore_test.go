package kube_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
)

// Fifty pods run, and the store comes back from a snapshot that knows ten of them; a
// kubelet is killed meanwhile. One command records what runs. Each process is the one
// that it was before: its number and when it was started are the same.
func TestAnOldSnapshotUnderFiftyPodsRestartsNothing(t *testing.T) {
	const known, web, late = 10, 30, 20
	runtimes(t, func(t *testing.T, runtime string) {
		r := startRows(t, rowsOf{native: runtime == "native", nodes: 2})
		r.create(r.quiet("web", known))
		r.eventually(60*time.Second, "what the snapshot knows runs", func(ctx context.Context) error { return r.rolledOut(ctx, "web", known) })
		snapshot := r.save()
		if err := r.scale("web", web); err != nil {
			t.Fatal(err)
		}
		r.create(r.quiet("late", late))
		r.eventually(2*time.Minute, "fifty pods run", func(ctx context.Context) error {
			return errors.Join(r.rolledOut(ctx, "web", web), r.rolledOut(ctx, "late", late))
		})
		ids, births := r.ids(""), r.births()
		if len(ids) != web+late || len(births) != web+late {
			t.Fatalf("%d containers and %d processes of %d are seen", len(ids), len(births), web+late)
		}

		r.plane.kill()
		r.nodes[0].kill()
		r.restore(snapshot)
		r.nodes[0].start()
		r.plane.start()
		r.plane.awaitReady()
		r.undecided(web + late - known)
		said := r.ctl("recover", "pods", "--adopt", "--as-told") // Of the later Deployment only the nodes know.
		if !strings.Contains(said, fmt.Sprintf("settled: %d adopted, 0 pruned", web+late-known)) || !strings.Contains(said, fmt.Sprintf("deployment/web scaled from %d to %d", known, web)) {
			t.Errorf("it says:\n%s", said)
		}
		r.eventually(60*time.Second, "all pods are recorded and available", func(ctx context.Context) error {
			pods, err := r.pods(ctx, "late") // The snapshot does not know their Deployment.
			ready := 0
			for _, p := range pods {
				if podReady(p) {
					ready++
				}
			}
			if ready != late {
				err = errors.Join(err, fmt.Errorf("%d pods of the later Deployment", ready))
			}
			return errors.Join(err, r.rolledOut(ctx, "web", web))
		})
		r.same(ids, r.ids(""))
		if after := r.births(); !maps.Equal(after, births) {
			t.Errorf("processes were\n%v\nand are\n%v", births, after)
		}
		r.replay()
	})
}

// quiet is a Deployment of containers that wait.
func (r *rows) quiet(name string, replicas int32) *appsv1.Deployment {
	d := r.demoDeployment(name, replicas)
	c := &d.Spec.Template.Spec.Containers[0]
	c.ReadinessProbe = nil
	c.Resources.Requests = amounts("1m", "8Mi")
	return d
}

// births are the processes of demo containers, by pod: their number, and when they were
// started as the machine counts.
func (r *rows) births() map[string]string {
	r.Helper()
	all := map[string]string{}
	for _, n := range r.nodes {
		for _, pid := range n.processes() {
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			variables := bytes.Split(env, []byte{0})
			at := slices.IndexFunc(variables, func(v []byte) bool { return bytes.HasPrefix(v, []byte("HOLDFAST_POD=")) })
			if err != nil || at < 0 {
				continue // A supervisor.
			}
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				r.Fatal(err)
			}
			_, rest, _ := strings.Cut(string(stat), ") ") // The name may have spaces.
			const started = 22 - 3                        // Counted from what follows the name.
			all[string(variables[at])] += fmt.Sprintf("process %d started at %s ", pid, strings.Fields(rest)[started])
		}
	}
	return all
}

// save takes a snapshot of the store, as a person does.
func (r *rows) save() string {
	r.Helper()
	snapshot := filepath.Join(r.dir, "snapshot.db")
	r.ctl("snapshot", "save", snapshot, "--endpoints="+r.store, "--cacert="+filepath.Join(r.certs, "ca.pem"),
		"--cert="+filepath.Join(r.certs, "client.pem"), "--key="+filepath.Join(r.certs, "client-key.pem"))
	return snapshot
}

// restore puts a snapshot in the place of the store of a control plane that does not run.
func (r *rows) restore(snapshot string) {
	r.Helper()
	member := filepath.Join(r.dir, "c1")
	if err := os.Rename(member, member+".old"); err != nil {
		r.Fatal(err)
	}
	r.ctl("snapshot", "restore", snapshot, "--name=c1", "--data-dir="+member, "--initial-cluster=c1="+r.peer, "--initial-advertise-peer-urls="+r.peer)
}

// undecided waits until all nodes have told what they run, of which so many pods are not
// recorded.
func (r *rows) undecided(pods int) {
	r.Helper()
	r.eventually(60*time.Second, "all nodes have told what they run", func(context.Context) error {
		told, err := r.try("recover", "pods", "-w", "json")
		if err != nil {
			return err
		}
		var is struct {
			State     string `json:"state"`
			Undecided int    `json:"undecided"`
			Nodes     []struct {
				Reported int64 `json:"reported"`
			} `json:"nodes"`
		}
		if err := json.Unmarshal([]byte(told), &is); err != nil {
			return fmt.Errorf("%w: %s", err, told)
		}
		for _, n := range is.Nodes {
			if n.Reported == 0 {
				return errors.New("not all have")
			}
		}
		if is.Undecided != pods || is.State != "open" {
			return fmt.Errorf("%s", told)
		}
		return nil
	})
}
