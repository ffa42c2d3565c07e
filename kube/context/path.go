package context

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// DefaultPath is where the file is: what HOLDFAST_CONFIG says, or .holdfast/config in
// the home of the person at the terminal. Under sudo that is who called it.
func DefaultPath(getenv func(string) string) (string, error) {
	if path := getenv("HOLDFAST_CONFIG"); path != "" {
		return path, nil
	}
	if p, ok := caller(getenv); ok {
		return filepath.Join(p.home, ".holdfast", "config"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", fmt.Errorf("%w: HOME is not set; name the file with --config or HOLDFAST_CONFIG", ErrNoFile)
	}
	return filepath.Join(home, ".holdfast", "config"), nil
}

// person is who called sudo.
type person struct {
	home     string
	uid, gid int
}

// caller is who called sudo, if that runs this program, as root.
func caller(getenv func(string) string) (person, bool) {
	uid, err := strconv.Atoi(getenv("SUDO_UID"))
	if err != nil || uid == 0 || os.Geteuid() != 0 {
		return person{}, false
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil || u.HomeDir == "" {
		return person{}, false
	}
	gid, err := strconv.Atoi(u.Gid)
	return person{u.HomeDir, uid, gid}, err == nil
}

// giveTo makes who called sudo the owner of what was written to his home. The file
// itself: what a symbolic link points at is not touched.
func giveTo(getenv func(string) string, path string) error {
	p, ok := caller(getenv)
	if !ok || !strings.HasPrefix(filepath.Clean(path), filepath.Clean(p.home)+string(filepath.Separator)) {
		return nil
	}
	return os.Lchown(path, p.uid, p.gid)
}
