package differential

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb" // For the routes of these services.
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// heard is what came back over HTTP.
type heard struct {
	status  int
	headers []string // Those that clients look at.
	body    any      // JSON, or lines, in an order of their own.
}

func (h heard) String() string {
	body, err := json.Marshal(h.body)
	return fmt.Sprintf("%d %v %.600s %v", h.status, h.headers, body, err)
}

// looked are headers that somebody looks at.
var looked = []string{"Content-Type", "Allow", "Access-Control-Allow-Methods", "Access-Control-Allow-Origin", "Access-Control-Allow-Headers", "X-Content-Type-Options"}

// said is a request over HTTP. Of an answer that goes on, so many lines are read.
type said struct {
	method, path, body string
	lines              int // 0: all.
}

// overHTTP sends a request to one address of one side.
func (t *target) overHTTP(test testing.TB, address string, r said, token string) (h heard) {
	test.Helper()
	req, err := http.NewRequestWithContext(test.Context(), r.method, "http://"+address+r.path, strings.NewReader(t.names.outwardText(r.body)))
	if err != nil {
		test.Fatal(err)
	}
	req.Header.Set("Origin", "http://page")
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: callTimeout}).Do(req)
	if err != nil {
		test.Errorf("%s: %s %s: %v", t.side, r.method, r.path, err)
		return h
	}
	defer resp.Body.Close()
	h.status = resp.StatusCode
	for _, name := range looked {
		if v := resp.Header.Get(name); v != "" {
			h.headers = append(h.headers, name+": "+v)
		}
	}
	h.body, err = t.readBody(resp.Body, r.lines)
	if err != nil {
		test.Errorf("%s: %s %s: %v", t.side, r.method, r.path, err)
	}
	return h
}

func (t *target) readBody(from io.Reader, lines int) (any, error) {
	var text []byte
	var err error
	if lines == 0 {
		text, err = io.ReadAll(from)
	}
	for in := bufio.NewReader(from); lines > 0 && err == nil; lines-- {
		var line []byte
		line, err = in.ReadBytes('\n')
		text = append(text, line...)
	}
	if errors.Is(err, io.EOF) { // An error is no stream.
		err = nil
	}
	var parts []any
	d := json.NewDecoder(strings.NewReader(t.names.inwardText(string(text))))
	for d.UseNumber(); d.More(); {
		var part any
		if d.Decode(&part) != nil { // A page of text.
			all := strings.Split(strings.TrimSpace(string(text)), "\n")
			slices.Sort(all)
			return all, err
		}
		parts = append(parts, settled(part))
	}
	return parts, err
}

// unequal are fields whose values two etcds do not agree on either, or a row of the page.
var unequal = []string{"hash", "raftIndex", "raftAppliedIndex", "dbSize", "dbSizeInUse", "token", "blob", "remaining_bytes"}

// settled leaves of such fields only that they are there, and of messages about
// bad JSON their beginning: the library varies its spaces.
func settled(v any) any {
	switch v := v.(type) {
	case string: // As in steady.
		return spaces.ReplaceAllString(v, " ")
	case []any:
		for i := range v {
			v[i] = settled(v[i])
		}
	case map[string]any:
		for name := range v {
			message, isText := v[name].(string)
			switch {
			case slices.Contains(unequal, name), name == "TTL" && v["grantedTTL"] != nil:
				v[name] = "…"
			case name == "message" && isText && strings.HasPrefix(message, "proto:"):
				v[name] = "proto:"
			default:
				v[name] = settled(v[name])
			}
		}
	}
	return v
}

// outwardText is a body in the words of the side.
func (n *names) outwardText(s string) string { return n.replaceText(s, true) }

// inwardText is one in the words of the test.
func (n *names) inwardText(s string) string { return n.replaceText(s, false) }

func (n *names) replaceText(s string, outward bool) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	pairs := slices.Clone(n.replaces)
	for _, k := range []kind{clusterID, memberID} {
		for real, name := range n.books[k].names {
			pairs = append(pairs, [2]string{fmt.Sprint(real), fmt.Sprint(name)})
		}
	}
	for _, r := range pairs {
		if outward {
			r[0], r[1] = r[1], r[0]
		}
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

// hear sends a request to both sides and compares the answers.
func (p *pair) hear(r said, tokens map[*target]string) (ours, theirs heard) {
	p.t.Helper()
	ours, theirs = both(p, func(side *target) heard { return side.overHTTP(p.t, side.client, r, tokens[side]) })
	p.compareHeard(r, ours, theirs)
	return ours, theirs
}

func (p *pair) compareHeard(r said, ours, theirs heard) {
	p.t.Helper()
	if !reflect.DeepEqual(ours, theirs) {
		p.t.Errorf("%s %s %.200s\n  %-8s %v\n  %-8s %v", r.method, r.path, r.body, p.ours.side, ours, p.theirs.side, theirs)
	}
}

// spoken are requests in JSON, in this order: every route that etcd declares, and
// the forms in which fields may come.
var spoken = []said{
	{path: "/v3/kv/put", body: `{"key":"YQ==","value":"MQ=="}`},
	{path: "/v3beta/kv/put", body: `{"key":"YQ==","value":"Mg==","prevKv":true,"unknown":[1,{}]}`},
	{path: "/v3/kv/put", body: `{}`},
	{path: "/v3/kv/put", body: ``},
	{path: "/v3/kv/put", body: `[]`},
	{path: "/v3/kv/put", body: `{"key":`},
	{path: "/v3/kv/put", body: `{"key":"no base64!"}`},
	{path: "/v3/kv/put", body: `{"key":"YQ==","lease":77}`},
	{path: "/v3/kv/put", body: `{"key":"YQ==","lease":"7.5"}`},
	{path: "/v3/kv/range", body: `{"key":"YQ=="}`},
	{path: "/v3/kv/range", body: `{"key":"AA==","range_end":"AA==","sort_order":"DESCEND","sort_target":1,"keys_only":true,"limit":"1"}`},
	{path: "/v3/kv/range", body: `{"key":"AA==","rangeEnd":"AA==","sortOrder":2,"sortTarget":"VALUE","count_only":true}`},
	{path: "/v3/kv/range", body: `{"key":"YQ==","sort_order":"SIDEWAYS"}`},
	{path: "/v3/kv/range", body: `{"key":"YQ==","sort_order":9}`},
	{path: "/v3/kv/range", body: `{"key":"YQ==","revision":"99"}`},
	{path: "/v3/kv/txn", body: `{"compare":[{"key":"YQ==","target":"VERSION","result":"EQUAL","version":"2"}],"success":[{"requestPut":{"key":"Yg==","value":"MQ=="}},{"request_range":{"key":"YQ=="}}]}`},
	{path: "/v3/kv/txn", body: `{"compare":[{"key":"YQ==","target":3,"value":"Mw=="}],"failure":[{"request_txn":{"success":[{"request_delete_range":{"key":"Yg==","prev_kv":true}}]}}]}`},
	{path: "/v3/kv/txn", body: `{"success":[{"requestRange":null}]}`},
	{path: "/v3/kv/txn", body: `{"success":[{}],"failure":[{"request_put":null}]}`},
	{path: "/v3/kv/txn", body: `{"compare":[{"key":"YQ==","target":"VALUE","value":null}],"success":[null]}`},
	{path: "/v3/kv/txn", body: `{"compare":[null]}`},
	{path: "/v3/kv/deleterange", body: `{"key":"Yg=="}`},
	{path: "/v3/watch", body: `{"create_request":{"key":"YQ==","start_revision":"3","prev_kv":true}}`, lines: 2},
	{path: "/v3/watch", body: `{"create_request":{"key":"Yg==","range_end":"YQ=="}}`, lines: 1},
	{path: "/v3/kv/compaction", body: `{"revision":"4","physical":true}`},
	{path: "/v3/kv/compaction", body: `{"revision":"4"}`},
	{path: "/v3/watch", body: `{"create_request":{"key":"YQ==","start_revision":"1"}}`, lines: 2},

	{path: "/v3/lease/grant", body: `{"TTL":"600","ID":"7"}`},
	{path: "/v3/lease/grant", body: `{"TTL":600,"ID":7}`},
	{path: "/v3/lease/grant", body: `{"TTL":"9000000001"}`},
	{path: "/v3/kv/put", body: `{"key":"bGVhc2Vk","lease":"7"}`},
	{path: "/v3/lease/keepalive", body: `{"ID":"7"}`},
	{path: "/v3/lease/keepalive", body: `{"ID":"8"}`},
	{path: "/v3/lease/timetolive", body: `{"ID":"7","keys":true}`},
	{path: "/v3/kv/lease/timetolive", body: `{"ID":"8"}`},
	{path: "/v3/lease/leases", body: `{}`},
	{path: "/v3/kv/lease/leases", body: ``},
	{path: "/v3/lease/revoke", body: `{"ID":"7"}`},
	{path: "/v3/kv/lease/revoke", body: `{"ID":"7"}`},

	{path: "/v3/cluster/member/list", body: `{"linearizable":true}`},
	{path: "/v3/cluster/member/add", body: `{"peerURLs":["nonsense"]}`},
	{path: "/v3/cluster/member/add", body: `{"peerURLs":["` + ownPeerURL + `"],"isLearner":true}`},
	{path: "/v3/cluster/member/remove", body: `{"ID":"1"}`},
	{path: "/v3/cluster/member/update", body: `{"ID":"1","peerURLs":["http://127.0.0.1:1"]}`},
	{path: "/v3/cluster/member/promote", body: `{"ID":"1"}`},
	{path: "/v3/cluster/member/promote", body: fmt.Sprintf(`{"ID":"%d"}`, uint64(memberNames))},

	{path: "/v3/maintenance/status", body: `{}`},
	{path: "/v3/maintenance/alarm", body: fmt.Sprintf(`{"action":1,"memberID":"%d","alarm":"NOSPACE"}`, uint64(memberNames))},
	{path: "/v3/maintenance/alarm", body: `{"action":"GET"}`},
	{path: "/v3/maintenance/status", body: `{}`},
	{path: "/v3/kv/put", body: `{"key":"YQ=="}`},
	{path: "/v3/maintenance/alarm", body: fmt.Sprintf(`{"action":"DEACTIVATE","memberID":"%d","alarm":1}`, uint64(memberNames))},
	{path: "/v3/maintenance/defragment", body: `{}`},
	{path: "/v3/maintenance/hash", body: `{}`},
	{path: "/v3/maintenance/hashkv", body: `{}`},
	{path: "/v3/maintenance/hashkv", body: `{"revision":"1000"}`},
	{path: "/v3/maintenance/snapshot", body: `{}`, lines: 1},
	{path: "/v3/maintenance/transfer-leadership", body: `{"targetID":"1"}`},
	{path: "/v3/maintenance/downgrade", body: `{"action":"VALIDATE","version":"3.6.0"}`},
	{path: "/v3/maintenance/downgrade", body: `{"action":"VALIDATE","version":"x"}`},

	{path: "/v3/lease/grant", body: `{"TTL":"600","ID":"9"}`},
	{path: "/v3/lock/lock", body: `{"name":"bA==","lease":"9"}`},
	{path: "/v3/lock/lock", body: `{"name":"bA==","lease":"9"}`},
	{path: "/v3/kv/range", body: `{"key":"bC85"}`},
	{path: "/v3/lock/unlock", body: `{"key":"bC85"}`},
	{path: "/v3/lock/unlock", body: `{"key":"bC85"}`},
	{path: "/v3/election/leader", body: `{"name":"ZQ=="}`},
	{path: "/v3/election/campaign", body: `{"name":"ZQ==","lease":"9","value":"MQ=="}`},
	{path: "/v3/election/campaign", body: `{"name":"ZQ==","lease":"9","value":"MQ=="}`},
	{path: "/v3/election/leader", body: `{"name":"ZQ=="}`},
	{path: "/v3/election/observe", body: `{"name":"ZQ=="}`, lines: 1},
	{path: "/v3/election/proclaim", body: `{"leader":{"name":"ZQ==","key":"ZS85","rev":"1","lease":"9"},"value":"Mw=="}`},
	{path: "/v3/election/proclaim", body: `{}`},
	{path: "/v3/election/resign", body: `{"leader":{"name":"ZQ==","key":"ZS85","rev":"1","lease":"9"}}`},
	{path: "/v3/election/resign", body: `{}`},

	{path: "/v3/auth/status", body: `{}`},
	{path: "/v3/auth/enable", body: `{}`},
	{path: "/v3/auth/authenticate", body: `{"name":"a","password":"b"}`},
	{path: "/v3/auth/user/add", body: `{"name":"u","password":"p"}`},
	{path: "/v3/auth/user/add", body: `{"name":"u","password":"p"}`},
	{path: "/v3/auth/user/add", body: `{"name":"n","options":{"no_password":true}}`},
	{path: "/v3/auth/user/add", body: `{}`},
	{path: "/v3/auth/user/list", body: `{}`},
	{path: "/v3/auth/user/changepw", body: `{"name":"u","password":"q"}`},
	{path: "/v3/auth/role/add", body: `{"name":"r"}`},
	{path: "/v3/auth/role/grant", body: `{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}`},
	{path: "/v3/auth/role/grant", body: `{"name":"r","perm":{"permType":1,"key":"bC8=","rangeEnd":"bDA="}}`},
	{path: "/v3/auth/role/grant", body: `{"name":"r"}`},
	{path: "/v3/auth/role/get", body: `{"role":"r"}`},
	{path: "/v3/auth/role/list", body: `{}`},
	{path: "/v3/auth/role/revoke", body: `{"role":"r","key":"YQ=="}`},
	{path: "/v3/auth/user/grant", body: `{"user":"u","role":"r"}`},
	{path: "/v3/auth/user/get", body: `{"name":"u"}`},
	{path: "/v3/auth/user/revoke", body: `{"name":"u","role":"s"}`},
	{path: "/v3/auth/user/delete", body: `{"name":"nobody"}`},
	{path: "/v3/auth/role/delete", body: `{"role":"nothing"}`},
	{path: "/v3/auth/user/add", body: `{"name":"root","password":"p"}`},
	{path: "/v3/auth/user/grant", body: `{"user":"root","role":"root"}`},
	{path: "/v3/auth/enable", body: `{}`},
	{path: "/v3/auth/authenticate", body: `{"name":"n","password":""}`},
}

// guarded are requests with authentication on, with no token, one that is none,
// and those of a user and of root.
var guarded = []said{
	{path: "/v3/kv/range", body: `{"key":"YQ=="}`},
	{path: "/v3/kv/range", body: `{"key":"eA=="}`},
	{path: "/v3/kv/put", body: `{"key":"YQ==","value":"MQ=="}`},
	{path: "/v3/watch", body: `{"create_request":{"key":"eA=="}}`, lines: 1},
	{path: "/v3/lease/keepalive", body: `{"ID":"9"}`},
	{path: "/v3/lock/unlock", body: `{"key":"bC85"}`},
	{path: "/v3/auth/status", body: `{}`},
	{path: "/v3/auth/user/list", body: `{}`},
	{path: "/v3/auth/user/get", body: `{"name":"u"}`},
	{path: "/v3/cluster/member/list", body: `{}`},
	{path: "/v3/maintenance/status", body: `{}`},
	{path: "/v3/maintenance/hashkv", body: `{}`},
	{path: "/v3/maintenance/downgrade", body: `{"action":"VALIDATE","version":"3.6.0"}`},
	{path: "/v3/maintenance/snapshot", body: `{}`, lines: 1},
	{path: "/v3/auth/disable", body: `{}`}, // Last, as root's is done.
}

func TestJSONIsAnsweredAlike(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{cheap: true})
	for _, r := range spoken {
		r.method = http.MethodPost
		p.hear(r, nil)
	}
	for _, user := range []string{"", "garbage", "u", "root"} {
		tokens := map[*target]string{p.ours: user, p.theirs: user}
		password := map[string]string{"u": "q", "root": "p"}[user]
		if password != "" {
			for _, side := range p.sides() {
				tokens[side] = side.tokenFor(p, user, password)
			}
		}
		for _, r := range guarded {
			if r.method = http.MethodPost; r.path == "/v3/lock/unlock" && password == "" {
				continue // The code is another: see docs/differences.md.
			}
			p.hear(r, tokens)
		}
	}
}

func (t *target) tokenFor(p *pair, user, password string) string {
	p.t.Helper()
	got := t.call(p.t.Context(), methods["Auth/Authenticate"], &pb.AuthenticateRequest{Name: user, Password: password})
	if got.msg == nil {
		p.t.Fatalf("%s: %v", t.side, got)
	}
	return got.msg.(*pb.AuthenticateResponse).Token
}

// TestEveryRouteOfEtcdIsSpoken looks for the routes in what etcd's messages are
// described with.
func TestEveryRouteOfEtcdIsSpoken(t *testing.T) {
	rule, err := protoregistry.GlobalTypes.FindExtensionByName("google.api.http")
	if err != nil {
		t.Fatal(err)
	}
	routes := map[string]bool{}
	var note func(m protoreflect.Message)
	note = func(m protoreflect.Message) {
		routes[m.Get(m.Descriptor().Fields().ByName("post")).String()] = true
		more := m.Get(m.Descriptor().Fields().ByName("additional_bindings")).List()
		for i := range more.Len() {
			note(more.Get(i).Message())
		}
	}
	for _, name := range []protoreflect.FullName{
		"etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease", "etcdserverpb.Cluster", "etcdserverpb.Maintenance", "etcdserverpb.Auth",
		"v3lockpb.Lock", "v3electionpb.Election",
	} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			t.Fatal(err)
		}
		all := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range all.Len() {
			if o := all.Get(i).Options(); proto.HasExtension(o, rule) {
				note(proto.GetExtension(o, rule).(proto.Message).ProtoReflect())
			}
		}
	}
	if len(routes) < 50 {
		t.Errorf("only %d routes were found", len(routes))
	}
	for route := range routes {
		if !slices.ContainsFunc(slices.Concat(spoken, guarded), func(r said) bool { return r.path == route }) {
			t.Errorf("nobody asks for %s", route)
		}
	}
}

// pages are those of the client port, in whatever state the member is.
var pages = []said{
	{method: "GET", path: "/health"}, {method: "GET", path: "/health?serializable=true"},
	{method: "GET", path: "/health?exclude=NOSPACE"}, {method: "GET", path: "/health?exclude=CORRUPT&exclude=NOSPACE"},
	{method: "POST", path: "/health"}, {method: "HEAD", path: "/health"},
	{method: "GET", path: "/livez"}, {method: "GET", path: "/livez?verbose"}, {method: "GET", path: "/livez/serializable_read?verbose"},
	{method: "GET", path: "/livez/linearizable_read"}, {method: "PUT", path: "/livez"},
	{method: "GET", path: "/readyz"}, {method: "GET", path: "/readyz?verbose=1"}, {method: "GET", path: "/readyz?exclude=data_corruption&exclude=nothing&verbose"},
	{method: "GET", path: "/readyz/data_corruption"}, {method: "GET", path: "/readyz/serializable_read"}, {method: "GET", path: "/readyz/linearizable_read"},
	{method: "GET", path: "/readyz/non_learner"}, {method: "GET", path: "/readyz/nothing"}, {method: "DELETE", path: "/readyz/non_learner"},
	{method: "GET", path: "/version"}, {method: "POST", path: "/version"},
	{method: "GET", path: "/v3/kv/range"}, {method: "PUT", path: "/v3/kv/range", body: `{"key":"YQ=="}`}, {method: "OPTIONS", path: "/v3/kv/range"},
	{method: "POST", path: "/v3/kv/nothing"}, {method: "GET", path: "/v3/nothing"}, {method: "POST", path: "/v3/kv/range/", body: `{"key":"YQ=="}`},
	{method: "GET", path: "/nothing"}, {method: "GET", path: "/"}, {method: "GET", path: "/debug/pprof/"}, {method: "OPTIONS", path: "/nothing"},
}

// ofPeers are those of the peer port.
var ofPeers = []said{
	{method: "GET", path: "/members"}, {method: "POST", path: "/members"}, {method: "GET", path: "/version"}, {method: "PUT", path: "/version"},
	{method: "GET", path: "/nothing"}, {method: "GET", path: "/health"}, {method: "GET", path: "/metrics"},
}

func TestPagesAreShownAlike(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	ask := func(list []said, address func(*target) string) {
		for _, r := range list {
			ours, theirs := both(p, func(side *target) heard { return side.overHTTP(t, address(side), r, "") })
			p.compareHeard(r, readable(r, ours), readable(r, theirs))
		}
	}
	ask(pages, func(side *target) string { return side.client })
	ask(ofPeers, func(side *target) string { return side.peer })
	for _, alarm := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		p.call(&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: memberNames, Alarm: alarm})
		ask(pages, func(side *target) string { return side.client })
		p.call(&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: memberNames, Alarm: alarm})
	}
}

// readable is a page without what docs/differences.md says of pages.
func readable(r said, h heard) heard {
	if strings.HasPrefix(r.path, "/health") && r.method == "GET" {
		h.headers = slices.DeleteFunc(h.headers, func(s string) bool { return strings.HasPrefix(s, "Content-Type") || strings.HasPrefix(s, "X-Content") })
	}
	lines, _ := h.body.([]string)
	for i, line := range lines {
		lines[i], _, _ = strings.Cut(line, ", of member ")
	}
	return h
}
