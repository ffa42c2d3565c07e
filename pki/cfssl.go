package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// This file reads cfssl's JSON: signing configurations and CSR files. Fields,
// their meaning and defaults are those of cfssl 1.6, except that what is not
// known is an error: a misspelt "expiry" would else be a certificate that ends on
// another day.

// The words that a configuration has for usages.
var (
	keyUsages = map[string]x509.KeyUsage{
		"signing":            x509.KeyUsageDigitalSignature,
		"digital signature":  x509.KeyUsageDigitalSignature,
		"content commitment": x509.KeyUsageContentCommitment,
		"key encipherment":   x509.KeyUsageKeyEncipherment,
		"key agreement":      x509.KeyUsageKeyAgreement,
		"data encipherment":  x509.KeyUsageDataEncipherment,
		"cert sign":          x509.KeyUsageCertSign,
		"crl sign":           x509.KeyUsageCRLSign,
		"encipher only":      x509.KeyUsageEncipherOnly,
		"decipher only":      x509.KeyUsageDecipherOnly,
	}
	extKeyUsages = map[string]x509.ExtKeyUsage{
		"any":              x509.ExtKeyUsageAny,
		"server auth":      x509.ExtKeyUsageServerAuth,
		"client auth":      x509.ExtKeyUsageClientAuth,
		"code signing":     x509.ExtKeyUsageCodeSigning,
		"email protection": x509.ExtKeyUsageEmailProtection,
		"s/mime":           x509.ExtKeyUsageEmailProtection,
		"ipsec end system": x509.ExtKeyUsageIPSECEndSystem,
		"ipsec tunnel":     x509.ExtKeyUsageIPSECTunnel,
		"ipsec user":       x509.ExtKeyUsageIPSECUser,
		"timestamping":     x509.ExtKeyUsageTimeStamping,
		"ocsp signing":     x509.ExtKeyUsageOCSPSigning,
		"microsoft sgc":    x509.ExtKeyUsageMicrosoftServerGatedCrypto,
		"netscape sgc":     x509.ExtKeyUsageNetscapeServerGatedCrypto,
	}
)

const cfsslExpiry = 365 * 24 * time.Hour // What cfssl gives where a profile and the default name none.

// Fields of profiles that concern cfssl's server, which we are not.
var profileIgnored = []string{"auth_key", "auth_remote", "remote", "lint_error_level", "ignored_lints", "ct_log_servers", "cert_store", "override_ca"}

var profileRefused = map[string]string{
	"not_before":                     "a certificate begins when it is signed: leave it out",
	"not_after":                      "say how long in expiry",
	"name_whitelist":                 "names are checked by who signs: leave it out",
	"allowed_extensions":             "extensions of requests are not copied: leave it out",
	"copy_extensions":                "extensions of requests are not copied: leave it out",
	"policies":                       "certificate policies are not written: leave it out",
	"client_provides_serial_numbers": "serial numbers are random: leave it out",
}

// ParseSigning reads a signing configuration of cfssl. What is known but does
// nothing here is returned by its path.
func ParseSigning(data []byte, file string) (*Signing, []string, error) {
	f := &jsonFile{name: file}
	top := f.object(f.parse(data), "the file", []string{"signing"}, []string{"auth_keys", "remotes", "ocsp"}, nil)
	if top["signing"] == nil && f.err() == nil {
		f.problem("signing", "is missing: is it a signing configuration of cfssl?")
	}
	signing := f.object(top["signing"], "signing", []string{"default", "profiles"}, nil, nil)
	s := &Signing{Profiles: map[Profile]Terms{}}
	expiry := cfsslExpiry
	if v, given := signing["default"]; given {
		s.Default = f.terms(v, "signing.default", expiry, true)
		expiry = s.Default.Validity
	}
	profiles, ok := signing["profiles"].(map[string]any)
	if !ok && signing["profiles"] != nil {
		f.problem("signing.profiles", "must be an object, in braces")
	}
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		s.Profiles[Profile(name)] = *f.terms(profiles[name], "signing.profiles."+name, expiry, false)
	}
	return s, f.ignored, f.err()
}

func (f *jsonFile) terms(v any, path string, expiry time.Duration, isDefault bool) *Terms {
	known := []string{"usages", "expiry", "backdate", "ca_constraint", "issuer_urls", "ocsp_url", "crl_url"}
	p := f.object(v, path, known, profileIgnored, profileRefused)
	t := &Terms{Validity: f.duration(p["expiry"], path+".expiry"), Backdate: f.duration(p["backdate"], path+".backdate")}
	if t.Validity == 0 {
		t.Validity = expiry
	}
	for i, word := range f.texts(p["usages"], path+".usages") {
		f.usage(t, word, fmt.Sprintf("%s.usages[%d]", path, i))
	}
	t.Issuers = f.texts(p["issuer_urls"], path+".issuer_urls")
	if url := f.text(p["ocsp_url"], path+".ocsp_url"); url != "" {
		t.OCSP = []string{url}
	}
	if url := f.text(p["crl_url"], path+".crl_url"); url != "" {
		t.CRL = []string{url}
	}
	ca := f.object(p["ca_constraint"], path+".ca_constraint", []string{"is_ca", "max_path_len", "max_path_len_zero"}, nil, nil)
	t.IsCA = f.yes(ca["is_ca"], path+".ca_constraint.is_ca")
	t.Intermediates = f.pathLength(ca["max_path_len"], ca["max_path_len_zero"], path+".ca_constraint.max_path_len")
	switch {
	case t.KeyUsage == 0 && len(t.ExtKeyUsage) == 0 && isDefault:
		t.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment // cfssl's own default.
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case t.KeyUsage == 0 && len(t.ExtKeyUsage) == 0 && v != nil:
		f.problem(path+".usages", "is missing: name what the certificates are for, such as \"signing\", \"server auth\", \"client auth\"")
	case t.IsCA && t.KeyUsage&x509.KeyUsageCertSign == 0:
		f.problem(path+".usages", "an authority needs \"cert sign\"")
	}
	return t
}

func (f *jsonFile) usage(t *Terms, word, path string) {
	if u, ok := keyUsages[word]; ok {
		t.KeyUsage |= u
		return
	}
	if u, ok := extKeyUsages[word]; ok {
		if !slices.Contains(t.ExtKeyUsage, u) {
			t.ExtKeyUsage = append(t.ExtKeyUsage, u)
		}
		return
	}
	words := slices.Concat(slices.Collect(maps.Keys(keyUsages)), slices.Collect(maps.Keys(extKeyUsages)))
	slices.Sort(words)
	f.problem(path, "there is no usage %q; known are %s", word, strings.Join(words, ", "))
}

// pathLength reads cfssl's two fields for one number: 0 means any, unless the
// other says that it means 0.
func (f *jsonFile) pathLength(length, zero any, path string) int {
	n := f.whole(length, path)
	switch isZero := f.yes(zero, path+"_zero"); {
	case n == 0 && !isZero:
		return -1
	case n != 0 && isZero:
		f.problem(path, "is %d, and the field beside it says that it is zero", n)
	}
	return n
}

// CSRFile is what a CSR file of cfssl asks for.
type CSRFile struct {
	CommonName string
	Names      pkix.Name
	Hosts      []string
	Key        KeyType

	// Of an authority.
	Validity      time.Duration
	Intermediates int
}

// ParseCSRFile reads a CSR file of cfssl, which is JSON. What is known but does
// nothing here is returned by its path.
func ParseCSRFile(data []byte, file string) (*CSRFile, []string, error) {
	f := &jsonFile{name: file}
	refused := map[string]string{
		"cn":                 "cfssl calls it CN, in capitals",
		"crl_url":            "say it in the signing configuration",
		"delegation_enabled": "delegated credentials are not written: leave it out",
		"extensions":         "extensions of requests are not copied: leave it out",
	}
	top := f.object(f.parse(data), "the file", []string{"CN", "hosts", "key", "names", "serialnumber", "ca"}, nil, refused)
	c := &CSRFile{CommonName: f.text(top["CN"], "CN"), Hosts: f.texts(top["hosts"], "hosts"), Names: f.names(top["names"])}
	if top != nil && strings.TrimSpace(c.CommonName) == "" {
		f.problem("CN", "is missing: it is the name of who holds the certificate")
	}
	if serial := f.text(top["serialnumber"], "serialnumber"); serial != "" {
		c.Names.SerialNumber = serial
	}
	c.Key = f.keyType(top["key"])
	for i, host := range c.Hosts {
		if _, _, err := splitHosts([]string{host}); err != nil {
			f.problem(fmt.Sprintf("hosts[%d]", i), "%q is neither an IP address nor a DNS name (without scheme and port)", host)
		}
	}
	ca := f.object(top["ca"], "ca", []string{"expiry", "pathlen", "pathlenzero"}, []string{"backdate"}, nil)
	c.Validity = f.duration(ca["expiry"], "ca.expiry")
	c.Intermediates = f.pathLength(ca["pathlen"], ca["pathlenzero"], "ca.pathlen")
	return c, f.ignored, f.err()
}

func (f *jsonFile) names(v any) pkix.Name {
	list, ok := v.([]any)
	if !ok && v != nil {
		f.problem("names", "must be a list of objects, in brackets")
	}
	refused := map[string]string{
		"E":   "addresses of mail are not written: leave it out",
		"OID": "only the usual parts of a name are written: leave it out",
		"CN":  "the common name stands beside names, not in it",
	}
	var n pkix.Name
	for i, e := range list {
		path := fmt.Sprintf("names[%d]", i)
		if e == nil {
			f.problem(path, "must be an object, in braces")
		}
		parts := f.object(e, path, []string{"C", "ST", "L", "O", "OU", "SerialNumber"}, nil, refused)
		for field, to := range map[string]*[]string{"C": &n.Country, "ST": &n.Province, "L": &n.Locality, "O": &n.Organization, "OU": &n.OrganizationalUnit} {
			if s := f.text(parts[field], join(path, field)); s != "" {
				*to = append(*to, s)
			}
		}
		if s := f.text(parts["SerialNumber"], path+".SerialNumber"); s != "" {
			n.SerialNumber = s
		}
	}
	return n
}

func (f *jsonFile) keyType(v any) KeyType {
	key := f.object(v, "key", []string{"algo", "size"}, nil, nil)
	algorithm, size := f.text(key["algo"], "key.algo"), f.whole(key["size"], "key.size")
	k := KeyType(algorithm)
	if size != 0 && k != Ed25519 { // cfssl takes no notice of the size of an ed25519 key.
		if algorithm == "" {
			algorithm = string(ECDSA)
		}
		k = KeyType(fmt.Sprintf("%s-%d", algorithm, size))
	}
	if err := k.check(); err != nil {
		f.problem("key", "%v", err)
	}
	return k
}

// Request is what the file asks of an authority.
func (c *CSRFile) Request(profile Profile, terms Terms) Request {
	return Request{Profile: profile, Terms: &terms, CommonName: c.CommonName, Names: c.Names, Hosts: c.Hosts, Key: c.Key}
}

// AuthorityRequest is what the file asks for when it is to become an authority.
func (c *CSRFile) AuthorityRequest() AuthorityRequest {
	return AuthorityRequest{CommonName: c.CommonName, Names: c.Names, Validity: c.Validity, Key: c.Key, Intermediates: c.Intermediates}
}
