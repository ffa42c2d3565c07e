package blobstoretest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sys/unix"
)

const (
	modulePath = "github.com/holdfast-db/holdfast"
	serverPath = "github.com/versity/versitygw/cmd/versitygw"

	bucket    = "archive"
	accessKey = "tester"
	secretKey = "tester-secret"

	startPatience = 30 * time.Second
)

// Server is an object store on this machine, for the time of a test: versitygw,
// as pinned in tools/, on a folder of its own, behind a Proxy.
type Server struct {
	Proxy *Proxy
}

// S3 starts a server and returns the URL of a bucket for blobstore.Open.
func S3(t testing.TB) (url string) {
	t.Helper()
	return StartS3(t).URL("")
}

// StartS3 starts a server whose network can be made bad. Where it cannot be
// built, the test is left out, or fails with HOLDFAST_REQUIRE_ALL=1.
func StartS3(t testing.TB) *Server {
	t.Helper()
	program, err := builtServer()
	if err != nil && os.Getenv("HOLDFAST_REQUIRE_ALL") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	// A socket has no port that somebody else may have; its path must be short.
	dir, err := os.MkdirTemp("", "s3-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, folder := range []string{"data", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "socket")
	cmd := exec.Command(program, "--port", socket, "--access", accessKey, "--secret", secretKey, "--region", "us-east-1", "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data"))
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // Nothing is left behind.
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	if err := waitFor(socket, ended); err != nil {
		t.Fatalf("versitygw: %v\n%s", err, &output)
	}
	s := &Server{Proxy: startProxy(t, socket)}
	ctx, cancel := context.WithTimeout(t.Context(), startPatience)
	defer cancel()
	if err := s.makeBucket(ctx); err != nil {
		t.Fatalf("make the bucket: %v", err)
	}
	return s
}

var builtServer = sync.OnceValues(buildServer)

// buildServer compiles versitygw into bin/, where other packages find it too.
func buildServer() (program string, err error) {
	var stderr bytes.Buffer
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", modulePath)
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w\n%s", err, &stderr)
	}
	root := strings.TrimSpace(string(out))
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(bin, "versitygw.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	program = filepath.Join(bin, "versitygw")
	build := exec.Command("go", "build", "-C", filepath.Join(root, "tools"), "-o", program, serverPath)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build versitygw: %w\n%s", err, out)
	}
	return program, nil
}

func waitFor(socket string, ended chan error) error {
	late := time.After(startPatience)
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("ended: %v", err)
		case <-late:
			return fmt.Errorf("does not listen: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *Server) makeBucket(ctx context.Context) error {
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(s.Proxy.URL), UsePathStyle: true, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
	})
	_, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket)})
	return err
}

// URL names the bucket, or a prefix in it, with all that is needed to open it.
func (s *Server) URL(prefix string) string {
	query := url.Values{
		"endpoint": {s.Proxy.URL}, "path-style": {"true"},
		"access-key-id": {accessKey}, "secret-access-key": {secretKey},
	}
	u := url.URL{Scheme: "s3", Host: bucket, Path: "/" + prefix, RawQuery: query.Encode()}
	return u.String()
}
