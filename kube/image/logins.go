package image

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Logins are for registries, from the secrets that a pod names.
type Logins []Login

// Login is for a registry, or a part of it.
type Login struct {
	Registry string // docker.io, or ghcr.io/team.
	runtime.Login
}

// ParseLogins reads the content of a secret: .dockerconfigjson, or .dockercfg.
func ParseLogins(content []byte) (Logins, error) {
	type entry struct {
		User     string `json:"username"`
		Password string `json:"password"`
		Auth     string `json:"auth"`
	}
	var file struct {
		Auths map[string]entry `json:"auths"`
	}
	// The parser's own error would quote the content, which is secret.
	if err := json.Unmarshal(content, &file); err != nil {
		return nil, errors.New("logins of registries: the secret is no JSON of docker's configuration: make it with 'docker login' or the type kubernetes.io/dockerconfigjson")
	}
	if file.Auths == nil {
		if err := json.Unmarshal(content, &file.Auths); err != nil {
			return nil, errors.New("logins of registries: the secret has no member auths")
		}
	}
	var logins Logins
	for _, at := range slices.Sorted(maps.Keys(file.Auths)) {
		e := file.Auths[at]
		if e.Auth != "" {
			pair, err := base64.StdEncoding.DecodeString(e.Auth)
			user, password, ok := strings.Cut(string(pair), ":")
			if err != nil || !ok {
				return nil, fmt.Errorf("logins of registries: auth of %s is not base64 of user:password", at)
			}
			e.User, e.Password = user, strings.TrimRight(password, "\x00")
		}
		logins = append(logins, Login{registryOf(at), runtime.Login{User: e.User, Password: e.Password}})
	}
	return logins, nil
}

// registryOf takes the forms that docker writes: https://index.docker.io/v1/ is docker.io.
func registryOf(at string) string {
	at = strings.TrimPrefix(strings.TrimPrefix(at, "https://"), "http://")
	at = strings.TrimRight(at, "/")
	for _, version := range []string{"/v1", "/v2"} {
		at = strings.TrimSuffix(at, version)
	}
	host, path, _ := strings.Cut(at, "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = defaultRegistry
	}
	return strings.TrimRight(host+"/"+path, "/")
}

// For lists what fits an image, the one that fits best first.
func (l Logins) For(ref Reference) []runtime.Login {
	var fit Logins
	for _, login := range l {
		if login.Registry == ref.Registry || strings.HasPrefix(ref.Name()+"/", login.Registry+"/") {
			fit = append(fit, login)
		}
	}
	slices.SortStableFunc(fit, func(a, b Login) int { return len(b.Registry) - len(a.Registry) })
	var logins []runtime.Login
	for _, login := range fit {
		if !slices.Contains(logins, login.Login) {
			logins = append(logins, login.Login)
		}
	}
	return logins
}
