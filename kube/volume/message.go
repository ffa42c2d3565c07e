package volume

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Message makes the file for the last words of an attempt of a container
// (terminationMessagePath), as a mount. Files of attempts before the last one go.
func (v *Volumes) Message(pod *corev1.Pod, c *corev1.Container, attempt int) (runtime.Mount, error) {
	unlock, err := v.lock(string(pod.UID))
	if err != nil {
		return runtime.Mount{}, err
	}
	defer unlock()
	if !single(c.Name) {
		return runtime.Mount{}, fmt.Errorf("name of the container: %w", ErrInvalid)
	}
	all, err := v.part(string(pod.UID), messagesName)
	if err != nil {
		return runtime.Mount{}, err
	}
	defer all.close()
	own, err := all.make(c.Name, 0o750)
	if err != nil {
		return runtime.Mount{}, err
	}
	defer own.close()
	names, err := own.all()
	if err != nil {
		return runtime.Mount{}, err
	}
	for _, name := range names {
		if n, err := strconv.Atoi(name); err != nil || n < attempt-1 || n >= attempt {
			if err := own.removeTree(name); err != nil {
				return runtime.Mount{}, err
			}
		}
	}
	name := strconv.Itoa(attempt)
	if err := own.write(name, nil, 0o666, -1); err != nil {
		return runtime.Mount{}, err
	}
	target := c.TerminationMessagePath
	if target == "" {
		target = corev1.TerminationMessagePathDefault
	}
	return runtime.Mount{Source: own.in(name), Target: filepath.Join("/", target)}, nil
}

// ReadMessage is what an attempt of a container said last, "" if nothing.
func (v *Volumes) ReadMessage(uid, container string, attempt int) string {
	if !single(uid) || !single(container) {
		return ""
	}
	data, err := v.root.read(filepath.Join(uid, messagesName, container, strconv.Itoa(attempt)), messageBytesMax)
	if err != nil {
		return "" // It said nothing that we can read.
	}
	return strings.ToValidUTF8(string(data), "\uFFFD")
}
