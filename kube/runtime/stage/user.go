//go:build linux

package stage

import (
	"strconv"
	"strings"
)

// identity is who a program is.
type identity struct {
	uid, gid int
	groups   []int
	home     string
}

const idMax = 1<<31 - 1

// identify finds who a program shall be, by the image's own lists of users and groups.
func identify(r *Rights) (*identity, error) {
	passwd, _ := readSmall("/etc/passwd") // An image may have none.
	group, _ := readSmall("/etc/group")
	return who(r, passwd, group)
}

func who(r *Rights, passwd, group string) (*identity, error) {
	name, groupName, _ := strings.Cut(r.ImageUser, ":")
	if r.User != nil {
		if name = strconv.FormatInt(*r.User, 10); r.Group == nil {
			groupName = ""
		}
	}
	if r.Group != nil {
		groupName = strconv.FormatInt(*r.Group, 10)
	}
	if name == "" {
		name = "0"
	}
	id := &identity{home: "/"}
	if err := id.user(name, passwd); err != nil {
		return nil, err
	}
	login := id.login(name, passwd)
	if groupName != "" {
		gid, err := lookup(groupName, group, "group")
		if err != nil {
			return nil, err
		}
		id.gid = gid
	} else {
		id.groups = memberships(login, group)
	}
	for _, g := range r.Groups {
		if g < 0 || g > idMax {
			return nil, invalid("supplementary group %d is out of range", g)
		}
		id.groups = append(id.groups, int(g))
	}
	if r.NonRoot && id.uid == 0 {
		return nil, invalid("runAsNonRoot, but the container's user %q is root: say runAsUser, or use an image with another user", name)
	}
	return id, nil
}

// entries are the lines of a file like /etc/passwd, of at least so many fields.
func entries(text string, fields int) [][]string {
	var all [][]string
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) >= fields && !strings.HasPrefix(line, "#") {
			all = append(all, f)
		}
	}
	return all
}

// lookup takes a number as it is, or finds that of a name. A number is never a name: an
// image could call its root "1000", which a pod says that its containers shall be.
func lookup(name, text, what string) (int, error) {
	if _, err := strconv.ParseInt(name, 10, 64); err == nil {
		return number(name, what)
	}
	for _, f := range entries(text, 3) {
		if f[0] == name {
			return number(f[2], what)
		}
	}
	return 0, invalid("%s %q is not in the image", what, name)
}

func number(text, what string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > idMax {
		return 0, invalid("%s %q is no number from 0 to %d", what, text, idMax)
	}
	return int(n), nil
}

// user fills in what the list of users says of one. One that is not in it has group 0.
func (id *identity) user(name, passwd string) error {
	uid, err := lookup(name, passwd, "user")
	if err != nil {
		return err
	}
	id.uid = uid
	for _, f := range entries(passwd, 6) {
		if f[2] == strconv.Itoa(uid) {
			if id.gid, err = number(f[3], "group"); err != nil {
				return err
			}
			if f[5] != "" {
				id.home = f[5]
			}
			return nil
		}
	}
	return nil
}

// login is the name of the user, as groups list it.
func (id *identity) login(name, passwd string) string {
	for _, f := range entries(passwd, 3) {
		if f[2] == strconv.Itoa(id.uid) {
			return f[0]
		}
	}
	return name
}

func memberships(login, group string) []int {
	var ids []int
	for _, f := range entries(group, 4) {
		for member := range strings.SplitSeq(f[3], ",") {
			if gid, err := number(f[2], "group"); member == login && err == nil {
				ids = append(ids, gid)
			}
		}
	}
	return ids
}
