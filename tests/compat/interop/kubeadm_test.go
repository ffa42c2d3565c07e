package interop

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// manifest is the static pod that kubeadm writes for etcd 3.5, as far as it matters
// here. The older etcd of the test does not know --experimental-watch-….
const manifest = `apiVersion: v1
kind: Pod
metadata:
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=https://10.0.0.1:2379
    - --cert-file=/etc/kubernetes/pki/etcd/server.crt
    - --client-cert-auth=true
    - --data-dir=/var/lib/etcd
    - --experimental-initial-corrupt-check=true
    - --initial-advertise-peer-urls=https://10.0.0.1:2380
    - --initial-cluster=m1=https://10.0.0.1:2380
    - --key-file=/etc/kubernetes/pki/etcd/server.key
    - --listen-client-urls=https://127.0.0.1:2379
    - --listen-metrics-urls=http://127.0.0.1:2381
    - --listen-peer-urls=https://10.0.0.1:2380
    - --name=m1
    - --peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt
    - --peer-client-cert-auth=true
    - --peer-key-file=/etc/kubernetes/pki/etcd/peer.key
    - --peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    - --snapshot-count=10000
    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    image: registry.k8s.io/etcd:3.5.24-0
    name: etcd
`

// controlPlane is the machine of the page, in a folder.
type controlPlane struct {
	t     *testing.T
	dir   string
	names *strings.Replacer // For the page's paths and addresses.
	env   []string
}

func newControlPlane(t *testing.T, m *member.Member) *controlPlane {
	t.Helper()
	dir := t.TempDir()
	certs := member.NewCerts(t)
	p := &controlPlane{t: t, dir: dir, names: strings.NewReplacer(
		"/etc/kubernetes/", dir+"/kubernetes/", "/var/lib/etcd", dir+"/lib/etcd",
		"https://127.0.0.1:2379", "https://"+m.Client, "https://10.0.0.1:2379", "https://"+m.Client,
		"https://10.0.0.1:2380", "https://"+m.Peer, "127.0.0.1:2381", fmt.Sprintf("127.0.0.1:%d", member.FreePorts(t, 1)[0]))}
	pki := filepath.Join(dir, "kubernetes", "pki", "etcd")
	for _, folder := range []string{pki, filepath.Join(dir, "kubernetes", "manifests"), filepath.Join(dir, "lib")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, from := range map[string]string{
		"ca.crt": certs.CA, "server.crt": certs.Server, "server.key": certs.ServerKey, "peer.crt": certs.Server, "peer.key": certs.ServerKey,
		"healthcheck-client.crt": certs.Client, "healthcheck-client.key": certs.ClientKey,
	} {
		if err := os.Link(from, filepath.Join(pki, name)); err != nil {
			t.Fatal(err)
		}
	}
	p.write("etcd.yaml", p.names.Replace(manifest))
	p.write("kube-apiserver.yaml", "kind: Pod\n")
	p.env = append(os.Environ(), "HOLDFASTCTL_ENDPOINTS=https://"+m.Client, "HOLDFASTCTL_CACERT="+filepath.Join(pki, "ca.crt"),
		"HOLDFASTCTL_CERT="+filepath.Join(pki, "healthcheck-client.crt"), "HOLDFASTCTL_KEY="+filepath.Join(pki, "healthcheck-client.key"),
		"CLUSTER=m1=https://"+m.Peer, "PATH="+filepath.Dir(member.Program(t, "holdfastctl"))+":"+os.Getenv("PATH"))
	return p
}

func (p *controlPlane) manifest(name string) string {
	return filepath.Join(p.dir, "kubernetes", "manifests", name)
}

func (p *controlPlane) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(p.manifest(name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// command is what the kubelet would run.
func (p *controlPlane) command() []string {
	p.t.Helper()
	text, err := os.ReadFile(p.manifest("etcd.yaml"))
	if err != nil {
		p.t.Fatal(err)
	}
	var pod struct {
		Spec struct{ Containers []struct{ Command []string } }
	}
	if err := yaml.Unmarshal(text, &pod); err != nil || len(pod.Spec.Containers) != 1 {
		p.t.Fatalf("%v, %d containers", err, len(pod.Spec.Containers))
	}
	return pod.Spec.Containers[0].Command
}

// types types one block of the page.
func (p *controlPlane) types(text string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "bash", "-euc", p.names.Replace(text))
	cmd.Dir, cmd.Env = p.dir, p.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s\n%v\n%s", text, err, out)
	}
	return string(out)
}

func TestTheMigrationOfAKubeadmCluster(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(member.Root(), "docs", "operations", "migrate-kubeadm.md"))
	if err != nil {
		t.Fatal(err)
	}
	etcd := need(t, "etcd", "etcd-server")
	m := member.New(t, member.Config{})
	p := newControlPlane(t, m)
	old := exec.Command(etcd, p.command()[1:]...)
	old.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=")
	old.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := old.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		_ = old.Process.Kill() // It may have ended.
		_ = old.Wait()
	}
	t.Cleanup(stop)
	p.types("until holdfastctl endpoint health; do sleep 0.1; done\nfor i in 1 2 3; do holdfastctl put /registry/pods/$i $i; done")

	blocks := block.FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 8 {
		t.Fatalf("%d blocks of shell on the page, expected 8", len(blocks))
	}
	for i, b := range blocks {
		out := p.types(b[2])
		switch i {
		case 3: // The kubelet ends etcd, as its manifest has gone.
			stop()
		case 5: // The kubelet starts what the manifest says.
			args := p.command()
			if args[0] != "/usr/local/bin/holdfast" {
				t.Fatalf("the manifest runs %s", args[0])
			}
			m.StartWith(p.dir, args[1:]...)
			p.probe()
		case 6:
			if !strings.Contains(out, "leader    m1") {
				t.Errorf("no leader:\n%s", out)
			}
		}
	}
	if out := p.types("holdfastctl get --prefix /registry/pods/ --print-value-only | tr -d '\\n'"); out != "123" {
		t.Errorf("the keys have %q", out)
	}
}

// probe asks what the kubelet asks, by the manifests of kubeadm so far.
func (p *controlPlane) probe() {
	p.t.Helper()
	client := http.Client{Timeout: time.Minute}
	for _, page := range []string{"health?serializable=true", "health?exclude=NOSPACE&serializable=true", "health?serializable=false", "livez", "readyz"} {
		r, err := client.Get(p.names.Replace("http://127.0.0.1:2381/") + page)
		if err != nil {
			p.t.Fatal(err)
		}
		_ = r.Body.Close() // Only the status matters.
		if r.StatusCode != http.StatusOK {
			p.t.Errorf("/%s answers with %s", page, r.Status)
		}
	}
}
