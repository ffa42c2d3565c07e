package cri_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/conformance"
	"github.com/holdfast-db/holdfast/kube/runtime/cri"
)

// containerd is a real one, with everything that it keeps in a folder of the test.
type containerd struct {
	dir, socket string
}

// socket is in the /run of these tests: paths of sockets are short.
const socket = "/run/holdfast-containerd.sock"

const pauseRef = "conformance.test/pause:1"

// configuration of containerd. An own root cannot lower the score of the OOM killer.
const configuration = `version = 2
root = "DIR/root"
state = "/run/holdfast-containerd"
oom_score = 0
[grpc]
  address = "SOCKET"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "PAUSE"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "CNI"
    conf_dir = "DIR/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`

// Networks, as configurations of CNI: a wire for each pod, or a bridge for all.
const (
	wires = `{"cniVersion": "0.4.0", "name": "pods", "plugins": [
 {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "dataDir": "DIR/addresses"}}]}`
	bridge = `{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "DIR/addresses"}}]}`
)

// startContainerd starts one; it ends with the test.
func startContainerd(t *testing.T, network string) *containerd {
	t.Helper()
	need(t)
	c := &containerd{dir: t.TempDir(), socket: socket}
	must(t, os.MkdirAll(filepath.Join(c.dir, "cni"), 0o755))
	fill := strings.NewReplacer("DIR", c.dir, "SOCKET", c.socket, "PAUSE", pauseRef, "CNI", plugins)
	must(t, os.WriteFile(filepath.Join(c.dir, "config.toml"), []byte(fill.Replace(configuration)), 0o644))
	must(t, os.WriteFile(filepath.Join(c.dir, "cni", "10-pods.conflist"), []byte(strings.ReplaceAll(network, "DIR", c.dir)), 0o644))
	log, err := os.Create(filepath.Join(c.dir, "log"))
	must(t, err)
	cmd := exec.Command("containerd", "--config", filepath.Join(c.dir, "config.toml"))
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("containerd, the end of %d bytes:\n%s", len(b), b[max(0, len(b)-6000):])
		}
	})
	return c
}

// engine connects to it as a node. Whoever gets it shuts it down.
func (c *containerd) engine(t *testing.T, node string, changed runtime.Changed, local cri.Local) *cri.Engine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	e, err := cri.New(ctx, cri.Config{Socket: c.socket, Node: node, Cgroup: "/holdfast-" + os.Getenv(insideVariable), Local: local, Changed: changed,
		Clock: clock.Real(), Logger: hclog.New(&hclog.LoggerOptions{Output: t.Output(), Level: hclog.Info})})
	must(t, err)
	return e
}

// load gives it an image under a name.
func (c *containerd) load(t *testing.T, files *conformance.Files, image *runtime.Image) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	must(t, os.WriteFile(file, archive(t, newImage(t, files.Layer, image), image.Ref), 0o644))
	out, err := exec.Command("ctr", "-a", c.socket, "-n", "k8s.io", "images", "import", file).CombinedOutput()
	if err != nil {
		t.Fatalf("import %s: %v\n%s", image.Ref, err, out)
	}
}

// content is an image of one layer: its blobs by digest, and which of them is the manifest.
type content struct {
	blobs    map[string][]byte
	manifest string
}

func (c *content) add(b []byte) string {
	sum := sha256.Sum256(b)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	c.blobs[digest] = b
	return digest
}

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

func newImage(t *testing.T, layer string, image *runtime.Image) *content {
	t.Helper()
	c := &content{blobs: map[string][]byte{}}
	descriptor := func(kind, digest string) map[string]any {
		return map[string]any{"mediaType": kind, "digest": digest, "size": len(c.blobs[digest])}
	}
	files := c.add(pack(t, layer))
	config := c.add(encode(t, map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{files}},
		"config": map[string]any{"User": image.User, "Env": image.Env, "Entrypoint": image.Entrypoint, "Cmd": image.Cmd,
			"WorkingDir": image.WorkingDir, "StopSignal": image.StopSignal},
	}))
	c.manifest = c.add(encode(t, map[string]any{"schemaVersion": 2, "mediaType": manifestType,
		"config": descriptor(configType, config), "layers": []any{descriptor(layerType, files)}}))
	return c
}

// archive is an image as OCI has it in a file.
func archive(t *testing.T, c *content, ref string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, text []byte) {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
		_, err := w.Write(text)
		must(t, err)
	}
	add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	add("index.json", encode(t, map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{
		"mediaType": manifestType, "digest": c.manifest, "size": len(c.blobs[c.manifest]),
		"annotations": map[string]string{"io.containerd.image.name": ref}}}}))
	for digest, blob := range c.blobs {
		add("blobs/sha256/"+strings.TrimPrefix(digest, "sha256:"), blob)
	}
	must(t, w.Close())
	return b.Bytes()
}

// pack is a folder as a layer.
func pack(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		if header.Name, err = filepath.Rel(dir, path); err != nil {
			return err
		}
		if err := w.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}))
	must(t, w.Close())
	return b.Bytes()
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor polls until something is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(90 * time.Second); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal(fmt.Sprint("in vain: ", what))
		}
	}
}
