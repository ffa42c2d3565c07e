package kube_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Supervisors outlive kubelets, and so a test that is aborted too. Each folder of a
// test therefore says whose it is: aliveFile is locked as long as the process of the
// test lives, and has the names of the nodes in it, a line each. What has such a file
// that nobody holds was aborted, and the next run ends what is left of it.
const aliveFile = "alive"

const folderPrefix = "kube-test-"

// claim marks a folder as one of this process. Nobody sees the file before it is locked.
func claim(dir string) (*os.File, error) {
	name := filepath.Join(dir, aliveFile)
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err == nil {
		err = os.Rename(name+".new", name)
	}
	return f, err
}

// hasNode writes down that there is a node in a folder.
func hasNode(t *testing.T, dir, node string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, aliveFile), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = fmt.Fprintln(f, node)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sweepAborted ends what aborted runs have left, and returns their folders. Those stay,
// for people, as do those of tests that have failed.
func sweepAborted(root string) (swept []string, err error) {
	files, err := filepath.Glob(filepath.Join(root, folderPrefix+"*", aliveFile))
	for _, name := range files {
		f, oerr := os.Open(name)
		if oerr != nil {
			continue // Its test has just ended.
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			dir := filepath.Dir(name)
			err = errors.Join(err, sweepFolder(dir, f), os.Remove(name))
			swept = append(swept, dir)
		}
		f.Close()
	}
	return swept, err
}

func sweepFolder(dir string, nodes io.Reader) error {
	text, err := io.ReadAll(nodes)
	if err != nil {
		return err
	}
	for _, node := range append(strings.Fields(string(text)), "") { // The last has no groups.
		n := &rowsNode{node: node, dir: dir}
		n.sweep(n.left())
		if left := n.left(); len(n.processes()) > 0 {
			return fmt.Errorf("left of an aborted run in %s: %q", dir, left)
		}
	}
	return nil
}

func TestWhatAnAbortedRunLeftIsEndedAndNothingOfALivingOne(t *testing.T) {
	root := t.TempDir()
	start := func(name string) (dir string, mark *os.File, ended chan error) {
		dir = filepath.Join(root, folderPrefix+name)
		if err := os.MkdirAll(filepath.Join(dir, "n1", "pods"), 0o700); err != nil {
			t.Fatal(err)
		}
		mark, err := claim(dir)
		if err != nil {
			t.Fatal(err)
		}
		hasNode(t, dir, "nobody-"+name)
		held, err := os.Create(filepath.Join(dir, "n1", "pods", "lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		cmd := exec.Command("sleep", "600") // All that tells of it is what it has open, as with a supervisor.
		cmd.Dir, cmd.ExtraFiles, cmd.SysProcAttr = "/", []*os.File{held}, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Env = []string{}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended = make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() { cmd.Process.Kill() })
		return dir, mark, ended
	}
	aborted, mark, ended := start("1")
	mark.Close() // As the end of its process would.
	_, living, goesOn := start("12")
	defer living.Close()

	swept, err := sweepAborted(root)
	if err != nil || len(swept) != 1 || swept[0] != aborted {
		t.Errorf("swept %q, %v", swept, err)
	}
	<-ended
	select {
	case err := <-goesOn:
		t.Errorf("a process of a living run has ended: %v", err)
	default:
	}
	if swept, err := sweepAborted(root); len(swept) > 0 || err != nil {
		t.Errorf("swept again %q, %v", swept, err)
	}
}
