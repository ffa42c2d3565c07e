package server_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/holdfast-db/holdfast/proto/gateway"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// post sends a body and returns status and answer, without the spaces that the
// JSON library puts in at random.
func post(t *testing.T, m *servertest.Member, path, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m.Config.ListenClientURLs[0]+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return do(t, r)
}

func do(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, strings.ReplaceAll(string(b), " ", "")
}

type route struct {
	path, body string
	status     int    // Zero: the service has tests of its own.
	answer     string // Part of it, without spaces.
}

// routes has a row for each route, and more than one where that shows more. They
// are called in this order.
var routes = []route{
	{"/v3/kv/put", `{"key":"YQ==","value":"MQ=="}`, 200, `"revision":"2"`},
	{"/v3beta/kv/put", `{"key":"YQ==","value":"Mg==","prev_kv":true,"unknown":[1,{}]}`, 200, `"prev_kv":{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"MQ=="}`},
	{"/v3/kv/put", `{}`, 400, `{"code":3,"message":"etcdserver:keyisnotprovided"}`},
	{"/v3/kv/put", `{"key":`, 400, `"code":3`},
	{"/v3/kv/range", `{"key":"YQ=="}`, 200, `"kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"2","value":"Mg=="}],"count":"1"}`},
	{"/v3/kv/range", `{"key":"AA==","range_end":"AA==","sort_order":"DESCEND","sort_target":1,"keys_only":true}`, 200, `"count":"1"`},
	{"/v3/kv/range", `{"key":"YQ==","revision":"99"}`, 400, `{"code":11,"message":"etcdserver:mvcc:requiredrevisionisafuturerevision"}`},
	{"/v3/kv/txn", `{"compare":[{"key":"YQ==","target":"VERSION","result":"EQUAL","version":"2"}],"success":[{"requestPut":{"key":"Yg==","value":"MQ=="}}]}`, 200, `"succeeded":true,"responses":[{"response_put":{"header":{"revision":"4"}}}]`},
	{"/v3/kv/txn", `{"success":[{"requestRange":null}]}`, 400, `{"code":3,"message":"etcdserver:keynotfound"}`},
	{"/v3/kv/txn", `{"success":[{}],"failure":[{"request_put":null}]}`, 400, `"etcdserver:keynotfound"`},
	{"/v3/kv/txn", `{"compare":[{"key":"YQ==","target":"VALUE","value":null}],"success":[null]}`, 400, `"code":3`},
	{"/v3/kv/deleterange", `{"key":"Yg=="}`, 200, `"deleted":"1"`},
	{"/v3/kv/compaction", `{"revision":"4","physical":true}`, 200, `"revision":"5"`},
	{"/v3/watch", `{"create_request":{"key":"YQ==","start_revision":"1"}}`, 200, `{"result":{"header":{"cluster_id":"`},

	{"/v3/lease/grant", `{"TTL":"600","ID":"7"}`, 200, `"ID":"7","TTL":"600"`},
	{"/v3/lease/keepalive", `{"ID":"7"}`, 200, `"ID":"7","TTL":"600"}}`},
	{"/v3/lease/timetolive", `{"ID":"7","keys":true}`, 200, `"grantedTTL":"600"`},
	{"/v3/kv/lease/timetolive", `{"ID":"8"}`, 200, `"TTL":"-1"`},
	{"/v3/lease/leases", `{}`, 200, `"leases":[{"ID":"7"}]`},
	{"/v3/kv/lease/leases", ``, 200, `"leases":[{"ID":"7"}]`},
	{"/v3/lease/revoke", `{"ID":"7"}`, 200, `"revision"`},
	{"/v3/kv/lease/revoke", `{"ID":"7"}`, 404, `{"code":5,"message":"etcdserver:requestedleasenotfound"}`},

	{"/v3/cluster/member/list", `{"linearizable":true}`, 200, `"name":"m0"`},
	{"/v3/cluster/member/add", `{"peerURLs":["nonsense"]}`, 400, `givenmemberURLsareinvalid`},
	{"/v3/cluster/member/remove", `{"ID":"1"}`, 404, `membernotfound`},
	{"/v3/cluster/member/update", `{"ID":"1","peerURLs":["http://127.0.0.1:1"]}`, 404, `membernotfound`},
	{"/v3/cluster/member/promote", `{"ID":"1"}`, 404, `membernotfound`},

	{"/v3/maintenance/status", `{}`, 200, `"storageVersion":"3.7.0"`},
	{"/v3/maintenance/alarm", `{"action":"GET"}`, 200, `"header"`},
	{"/v3/maintenance/alarm", `{"action":1,"alarm":"NOSPACE"}`, 200, `"alarms":[{"alarm":"NOSPACE"}]`},
	{"/v3/maintenance/alarm", `{"action":"DEACTIVATE","alarm":1}`, 200, `"header"`},
	{"/v3/maintenance/defragment", `{}`, 200, `{}`},
	{"/v3/maintenance/hash", `{}`, 200, `"hash":`},
	{"/v3/maintenance/hashkv", `{}`, 200, `"hash_revision":"5"`},
	{"/v3/maintenance/snapshot", `{}`, 200, `{"result":{"blob":"`},
	{"/v3/maintenance/transfer-leadership", `{"targetID":"1"}`, 400, `badleadertransferee`},
	{"/v3/maintenance/downgrade", `{"action":"VALIDATE","version":"3.6.0"}`, 0, ``},

	{"/v3/auth/status", `{}`, 0, ``},
	{"/v3/auth/enable", `{}`, 0, ``},
	{"/v3/auth/disable", `{}`, 0, ``},
	{"/v3/auth/authenticate", `{"name":"a","password":"b"}`, 0, ``},
	{"/v3/auth/user/add", `{"name":"u","password":"p"}`, 0, ``},
	{"/v3/auth/user/get", `{"name":"u"}`, 0, ``},
	{"/v3/auth/user/list", `{}`, 0, ``},
	{"/v3/auth/user/changepw", `{"name":"u","password":"q"}`, 0, ``},
	{"/v3/auth/role/add", `{"name":"r"}`, 0, ``},
	{"/v3/auth/role/get", `{"role":"r"}`, 0, ``},
	{"/v3/auth/role/list", `{}`, 0, ``},
	{"/v3/auth/role/grant", `{"name":"r","perm":{"permType":"READWRITE","key":"YQ=="}}`, 0, ``},
	{"/v3/auth/role/revoke", `{"role":"r","key":"YQ=="}`, 0, ``},
	{"/v3/auth/user/grant", `{"user":"u","role":"r"}`, 0, ``},
	{"/v3/auth/user/revoke", `{"name":"u","role":"r"}`, 0, ``},
	{"/v3/auth/user/delete", `{"name":"u"}`, 0, ``},
	{"/v3/auth/role/delete", `{"role":"r"}`, 0, ``},

	{"/v3/lease/grant", `{"TTL":"600","ID":"9"}`, 200, `"ID":"9"`},
	{"/v3/lock/lock", `{"name":"bA==","lease":"9"}`, 200, `"key":"bC85"`},
	{"/v3/lock/unlock", `{"key":"bC85"}`, 200, `"header"`},
	{"/v3/election/campaign", `{"name":"ZQ==","lease":"9","value":"MQ=="}`, 200, `"leader":{"name":"ZQ==","key":"ZS85","rev":"8","lease":"9"}`},
	{"/v3/election/proclaim", `{"leader":{"name":"ZQ==","key":"ZS85","rev":"8","lease":"9"},"value":"Mg=="}`, 200, `"header"`},
	{"/v3/election/proclaim", `{}`, 500, `"message":"\"leader\"fieldmustbeprovided"`},
	{"/v3/election/leader", `{"name":"ZQ=="}`, 200, `"value":"Mg==","lease":"9"`},
	{"/v3/election/observe", `{"name":"ZQ=="}`, 200, `{"result":{"header":{`},
	{"/v3/election/resign", `{"leader":{"name":"ZQ==","key":"ZS85","rev":"8","lease":"9"}}`, 200, `"header"`},
}

// firstLine of a stream, which this side then leaves at once.
func firstLine(t *testing.T, m *servertest.Member, path, body string) (int, string) {
	t.Helper()
	answer, err := http.Post(m.Config.ListenClientURLs[0]+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	line, err := bufio.NewReader(answer.Body).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %q, %v", path, line, err)
	}
	return answer.StatusCode, line
}

func TestTheGatewayAnswersOnEveryRoute(t *testing.T) {
	m := servertest.New(t, 1, nil).Members[0]
	for _, row := range routes {
		call := func(t *testing.T, m *servertest.Member, path, body string) (int, string) {
			return post(t, m, path, body)
		}
		if slices.Contains([]string{"/v3/watch", "/v3/election/observe", "/v3/maintenance/snapshot"}, row.path) {
			call = firstLine
		}
		status, answer := call(t, m, row.path, row.body)
		if row.status == 0 {
			if status == http.StatusNotFound && !strings.Contains(answer, "etcdserver:") {
				t.Errorf("%s leads nowhere: %s", row.path, answer)
			}
			continue
		}
		if status != row.status || !strings.Contains(answer, row.answer) {
			t.Errorf("%s %s: %d %s, want %d %s", row.path, row.body, status, answer, row.status, row.answer)
		}
	}
}

func TestEveryCallHasARouteAndEveryRouteATest(t *testing.T) {
	var api struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		}
	}
	if err := json.Unmarshal(gateway.OpenAPI, &api); err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for path, methods := range api.Paths {
		for _, method := range methods {
			served[method.OperationID] = true
		}
		if !slices.ContainsFunc(routes, func(r route) bool { return r.path == path }) {
			t.Errorf("no row for %s", path)
		}
	}
	for _, name := range servertest.New(t, 1, nil).Members[0].Methods() {
		service, method, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
		if strings.HasPrefix(service, "grpc.") || name == "/etcdserverpb.KV/RangeStream" { // For gRPC alone, as in etcd.
			continue
		}
		if id := service[strings.LastIndex(service, ".")+1:] + "_" + method; !served[id] {
			t.Errorf("%s has no route: give it one in proto/holdfast/gateway.yaml", name)
		}
	}
}

func TestAWatchOverTheGatewayIsALineAnAnswer(t *testing.T) {
	m := servertest.New(t, 1, nil).Members[0]
	answer, err := http.Post(m.Config.ListenClientURLs[0]+"/v3/watch", "application/json", strings.NewReader(`{"create_request":{"key":"YQ==","prev_kv":true}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewReader(answer.Body)
	created, err := lines.ReadString('\n')
	if err != nil || !strings.HasSuffix(created, "\"created\":true}}\n") {
		t.Fatalf("created: %q, %v", created, err)
	}
	post(t, m, "/v3/kv/put", `{"key":"YQ==","value":"MQ=="}`)
	event, err := lines.ReadString('\n')
	if err != nil || !strings.HasSuffix(event, `"events":[{"kv":{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"MQ=="}}]}}`+"\n") {
		t.Fatalf("event: %q, %v", event, err)
	}
}

func TestAWatchOverAWebSocketTakesMoreThanOneRequest(t *testing.T) {
	m := servertest.New(t, 1, nil).Members[0]
	url := strings.Replace(m.Config.ListenClientURLs[0], "http", "ws", 1)
	conn, _, err := websocket.DefaultDialer.Dial(url+"/v3/watch", http.Header{"Sec-WebSocket-Protocol": {"Bearer, token"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := func(s string) {
		t.Helper()
		if err := conn.WriteMessage(websocket.TextMessage, []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(want string) {
		t.Helper()
		if _, b, err := conn.ReadMessage(); err != nil || !strings.Contains(string(b), want) {
			t.Fatalf("heard %s, %v, not %s", b, err, want)
		}
	}
	say(`{"create_request":{"key":"YQ=="}}`)
	hear(`"created":true}}`)
	say(`{"create_request":{"key":"Yg==","watch_id":"5"}}`)
	hear(`"watch_id":"5","created":true}}`)
	post(t, m, "/v3/kv/put", `{"key":"Yg==","value":"MQ=="}`)
	hear(`"watch_id":"5","events":[`)
	say(`{"cancel_request":{"watch_id":"5"}}`)
	hear(`"canceled":true`)

	one, _, err := websocket.DefaultDialer.Dial(url+"/v3/kv/range", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if err := one.WriteMessage(websocket.TextMessage, []byte(`{"key":"Yg=="}`)); err != nil {
		t.Fatal(err)
	}
	m.Stop()
	if _, _, err := conn.ReadMessage(); err == nil {
		if _, _, err = conn.ReadMessage(); err == nil {
			t.Fatal("a stream goes on without its member")
		}
	}
}

func TestWhoMayUseTheGateway(t *testing.T) {
	m := servertest.New(t, 1, func(_ int, c *server.Config) {
		c.HostWhitelist, c.CORS = []string{"127.0.0.1", "good"}, []string{"https://page"}
	}).Members[0]
	request := func(method, path, host, origin string) (int, http.Header, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, m.Config.ListenClientURLs[0]+path, strings.NewReader(`{"key":"YQ=="}`))
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			r.Host = host
		}
		r.Header.Set("Origin", origin)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, answer.Header, strings.ReplaceAll(string(b), " ", "")
	}
	for _, c := range []struct {
		method, path, host, origin string
		status                     int
		cors, body                 string
	}{
		{"POST", "/v3/kv/range", "", "", 200, "", `"header"`},
		{"POST", "/v3/kv/range", "good:2379", "", 200, "", `"header"`},
		{"POST", "/v3/kv/range", "evil", "", 421, "", "--host-whitelist"},
		{"GET", "/version", "evil", "", 421, "", "--host-whitelist"},
		{"POST", "/v3/kv/range", "", "https://page", 200, "https://page", `"header"`},
		{"POST", "/v3/kv/range", "", "https://other", 200, "", `"header"`},
		{"OPTIONS", "/v3/kv/range", "", "https://page", 200, "https://page", ""},
		{"GET", "/v3/kv/range", "", "https://page", 501, "https://page", `{"code":12,"message":"MethodNotAllowed"}`},
		{"POST", "/v3/kv/nothing", "", "", 404, "", `"code":5`},
		{"GET", "/health", "", "https://page", 200, "https://page", `"health":"true"`},
		{"POST", "/v3/kv/nothing", "", "https://page", 404, "https://page", `"code":5`},
		{"GET", "/openapi.json", "", "", 200, "", `"/v3/kv/range"`},
	} {
		status, header, body := request(c.method, c.path, c.host, c.origin)
		if status != c.status || header.Get("Access-Control-Allow-Origin") != c.cors || !strings.Contains(body, c.body) {
			t.Errorf("%s %s to %q from %q: %d, %q, %.200s", c.method, c.path, c.host, c.origin, status, header.Get("Access-Control-Allow-Origin"), body)
		}
	}
}

func TestTheGatewayReadsNoMoreThanACallMayCarry(t *testing.T) {
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.RequestBytesMax = 1 << 10 }).Members[0]
	for size, want := range map[int]string{1 << 10: "etcdserver:requestistoolarge", 600 << 10: `"code":8`, 8 << 20: "etcdserver:requestistoolarge"} {
		status, answer := post(t, m, "/v3/kv/put", `{"key":"YQ==","value":"`+strings.Repeat("AAAA", size/3+1)+`"}`)
		if status == 200 || !strings.Contains(answer, want) {
			t.Errorf("a value of %d bytes: %d %.200s", size, status, answer)
		}
	}
}

func TestTheGatewayMayBeTurnedOff(t *testing.T) {
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.EnableGateway = false }).Members[0]
	if status, _ := post(t, m, "/v3/kv/range", `{"key":"YQ=="}`); status != http.StatusNotFound {
		t.Errorf("%d", status)
	}
}

// A page that was led here by a name of its own knows no certificate for it.
func TestUnderTLSEveryNameMayCall(t *testing.T) {
	a := newAuthority(t)
	a.revoke()
	m := servertest.New(t, 1, func(_ int, c *server.Config) {
		c.HostWhitelist, c.ClientTLS = []string{"good"}, a.tls()
		c.ListenClientURLs = append(c.ListenClientURLs, secured(c.ListenClientURLs[0]))
	}).Members[0]
	transport := &http.Transport{TLSClientConfig: a.clientConfig("bob")}
	defer transport.CloseIdleConnections()
	for i, want := range []int{http.StatusMisdirectedRequest, http.StatusOK} {
		r, err := (&http.Client{Transport: transport}).Get(m.Config.ListenClientURLs[i] + "/version")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != want {
			t.Errorf("%s: %d, want %d", m.Config.ListenClientURLs[i], r.StatusCode, want)
		}
	}
}
