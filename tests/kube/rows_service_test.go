package kube_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

var (
	rowsCopies = flag.Int("rows.copies", 4, "copies that are updated under load")
	rowsRate   = flag.Int("rows.rate", 100, "requests a second meanwhile")
)

var podLine = regexp.MustCompile(`(?m)^pod +(\S+)$`)

// asks has a demo container ask a URL some times, and counts who answers.
func (r *rows) asks(pod, url string, times int) map[string]int {
	r.Helper()
	got := r.ctl("exec", "-q", pod, "-c", "c", "--", "/bin/holdfast", "demo", "get", "-n", fmt.Sprint(times), url)
	by := map[string]int{}
	for _, m := range podLine.FindAllStringSubmatch(got, -1) {
		by[m[1]]++
	}
	return by
}

func (r *rows) service(s *corev1.Service) *corev1.Service {
	r.Helper()
	made, err := objects.Create(r.ctx, r.api, s)
	if err != nil {
		r.Fatal(err)
	}
	return made
}

// chiSquareMax for three degrees of freedom is passed by chance once in a million times.
const chiSquareMax = 30.7

func (r *rows) spreads() {
	r.create(r.demoDeployment("even", 4))
	selector := map[string]string{"app": "even"}
	r.service(rowsService("even", selector))
	sticky := rowsService("sticky", selector)
	sticky.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	r.service(sticky)
	client := podOf("client", r.demo("c"))
	r.run(client)
	r.eventually(40*time.Second, "four copies run", func(ctx context.Context) error { return r.rolledOut(ctx, "even", 4) })
	var by map[string]int
	const times = 400
	r.eventually(20*time.Second, "all four answer", func(context.Context) error {
		if by = r.asks("client", "http://even", 40); len(by) < 4 {
			return fmt.Errorf("%v", by)
		}
		return nil
	})
	sum, chi := 0, 0.0
	for _, name := range []string{"http://even", "http://even.default.svc.cluster.local"} {
		by = r.asks("client", name, times)
		for _, n := range by {
			sum += n
			chi += float64(n-times/4) * float64(n-times/4) / (times / 4)
		}
		if len(by) != 4 || sum != times || chi > chiSquareMax {
			r.Errorf("%s: %v, χ² %.1f", name, by, chi)
		}
		r.Logf("%s: %v, χ² %.1f", name, by, chi)
		sum, chi = 0, 0
	}
	if by := r.asks("client", "http://sticky", 50); len(by) != 1 {
		r.Errorf("a client that shall come to one came to %v", by)
	}
}

func (r *rows) followsLabels() {
	for _, colour := range []string{"blue", "green"} {
		p := podOf("is-"+colour, r.demo("c"))
		p.Labels["colour"] = colour
		r.run(p)
	}
	r.service(rowsService("coloured", map[string]string{"colour": "blue"}))
	only := func(pod string) {
		r.Helper()
		r.eventually(10*time.Second, "only "+pod+" answers", func(context.Context) error {
			got, err := r.try("exec", "-q", "is-green", "-c", "c", "--", "/bin/holdfast", "demo", "get", "-n", "20", "http://coloured")
			if err != nil {
				return err
			}
			for _, m := range podLine.FindAllStringSubmatch(got, -1) {
				if m[1] != pod {
					return fmt.Errorf("%s answers", m[1])
				}
			}
			return nil
		})
	}
	only("is-blue")
	r.ctl("label", "pod", "is-green", "colour=blue", "--overwrite")
	r.ctl("label", "pod", "is-blue", "colour=grey", "--overwrite")
	only("is-green")
	if got := r.ctl("get", "pods", "-l", "colour=blue"); lines(got, "is-green") != 1 || lines(got, "is-blue") != 0 {
		r.Errorf("get -l:\n%s", got)
	}
}

// spreadsPlainly is the same without names, and with two pods: a service is an address of
// loopback, at which each kubelet listens.
func (r *rows) spreadsPlainly() {
	c := r.demo("c")
	for i, n := range r.nodes {
		p := podOf(fmt.Sprintf("plain-%d", i), c)
		p.Labels["app"] = "plain"
		onNode(&p.Spec, n)
		r.run(p)
	}
	s := rowsService("plain", map[string]string{"app": "plain"})
	s.Spec.Ports[0].Port, s.Spec.Ports[0].TargetPort = rowsPort, intstr.FromString("http")
	s = r.service(s)
	at := fmt.Sprintf("http://%s:%d", s.Spec.ClusterIP, rowsPort)
	client, by := r.web(r.nodes[0]), map[string]int{}
	ask := func() error {
		answer, err := client.Get(at)
		if err != nil {
			return err
		}
		answer.Body.Close()
		by[answer.Header.Get("X-Pod")]++
		return nil
	}
	r.eventually(20*time.Second, "both answer", func(context.Context) error {
		if err := ask(); err != nil || len(by) < len(r.nodes) {
			return fmt.Errorf("%v, %w", by, err)
		}
		return nil
	})
	clear(by)
	const times = 400
	for range times {
		if err := ask(); err != nil {
			r.Fatal(err)
		}
	}
	chi := 0.0
	for _, n := range by {
		chi += float64(n-times/2) * float64(n-times/2) / (times / 2)
	}
	r.Logf("%v, χ² %.1f", by, chi)
	if len(by) != 2 || chi > 24 { // Of one degree of freedom: once in a million times.
		r.Errorf("%v, χ² %.1f", by, chi)
	}
}

// flood asks at a steady rate, each time over a new connection.
type flood struct {
	sync.Mutex
	asked    int
	failed   []error
	versions map[string]int
}

func (f *flood) ask(client *http.Client, url string) {
	answer, err := client.Get(url)
	version := ""
	if err == nil {
		var body []byte
		if body, err = io.ReadAll(answer.Body); err == nil && answer.StatusCode != http.StatusOK {
			err = errors.New(answer.Status)
		}
		answer.Body.Close()
		if m := regexp.MustCompile(`(?m)^version +(\S+)$`).FindSubmatch(body); m != nil {
			version = string(m[1])
		}
	}
	f.Lock()
	defer f.Unlock()
	f.asked++
	f.versions[version]++
	if err != nil {
		f.failed = append(f.failed, err)
	}
}

func (f *flood) run(ctx context.Context, client *http.Client, url string, rate int) {
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			all.Go(func() { f.ask(client, url) })
		case <-ctx.Done():
			return
		}
	}
}

// rollsUnderLoad updates a Deployment as people do who want no request lost: copies are
// ready when they say so, and serve on for a while when they are told to stop.
func (r *rows) rollsUnderLoad() {
	n := int32(*rowsCopies)
	d := r.demoDeployment("rolls", n)
	grace := int64(15)
	spec := &d.Spec.Template.Spec
	spec.TerminationGracePeriodSeconds = &grace
	spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}}
	r.create(d)
	s := r.service(rowsService("rolls", d.Spec.Selector.MatchLabels))
	r.eventually(60*time.Second, "all copies run", func(ctx context.Context) error { return r.rolledOut(ctx, "rolls", n) })
	client := r.web(r.nodes[0])
	url := "http://" + s.Spec.ClusterIP
	r.eventually(20*time.Second, "the service answers", func(context.Context) error {
		f := &flood{versions: map[string]int{}}
		f.ask(client, url)
		return errors.Join(f.failed...)
	})
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	f := &flood{versions: map[string]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.run(ctx, client, url, *rowsRate)
	}()
	began := time.Now()
	patch := fmt.Sprintf(`{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"PORT","value":"%d"},{"name":"DEMO_VERSION","value":"v2"}]}]}}}}`, rowsPort)
	if _, err := r.api.RPC().Patch(r.ctx, &kubepb.PatchRequest{
		Object: &kubepb.Ref{Kind: "Deployment", Namespace: "default", Name: "rolls"}, Type: kubepb.PatchRequest_STRATEGIC, Patch: []byte(patch),
	}); err != nil {
		r.Fatal(err)
	}
	r.eventually(3*time.Minute, "all copies are of the new version", func(ctx context.Context) error { return r.rolledOut(ctx, "rolls", n) })
	took := time.Since(began)
	wait(r.ctx, 6*time.Second) // The last of the old ones ends.
	cancel()
	<-done
	r.Logf("%d copies in %.1f s, %d requests: %v, %d failed", n, took.Seconds(), f.asked, f.versions, len(f.failed))
	if len(f.failed) > 0 {
		r.Errorf("%d requests of %d failed, the first: %v", len(f.failed), f.asked, f.failed[0])
	}
	if f.versions["v1"] == 0 || f.versions["v2"] == 0 {
		r.Errorf("versions that answered: %v", f.versions)
	}
	if err := objects.Delete[*appsv1.Deployment](r.ctx, r.api, "default", "rolls"); err != nil {
		r.Error(err)
	}
}
