package cri

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// refine makes an error of the runtime one of ours.
func refine(err error) error {
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.NotFound:
		return fmt.Errorf("%w: %s", runtime.ErrNotFound, status.Convert(err).Message())
	default:
		text := status.Convert(err).Message()
		if hasAny(text, unmakable) {
			return fmt.Errorf("%w: %s", runtime.ErrInvalid, text)
		}
		return errors.New(text)
	}
}

// unmakable are what containerd and CRI-O say of specs that no repetition mends. They
// give all of them the code Unknown.
var unmakable = []string{"no users found", "no groups found", "unable to find user", "unable to find group", "no command specified"}

// unrunnable are what runc and crun say of commands.
var unrunnable = []string{"executable file not found", "no such file or directory", "permission denied", "exec format error", "is a directory", "not a directory"}

func hasAny(text string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// absent reports whether the runtime has never heard of something, or not any more.
func absent(err error) bool { return status.Code(err) == codes.NotFound }

// unknownCall reports whether the runtime is too old for a call.
func unknownCall(err error) bool { return status.Code(err) == codes.Unimplemented }
