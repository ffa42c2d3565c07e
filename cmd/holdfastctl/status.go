package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/task"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Bounds beyond which a member has a problem.
const (
	statusLagMax     = 5000                // Entries behind the leader.
	statusQuotaMax   = 90                  // Percent of the quota in use.
	statusCertSoon   = 14 * 24 * time.Hour // Until a certificate ends.
	statusPageMax    = 16 << 20            // Bytes of a page of metrics.
	statusDrillOld   = 8 * 24 * time.Hour  // Since the last drill.
	statusBackupOld  = 25 * time.Hour      // Since the last base.
	statusFreeFactor = 2                   // Free disk, in sizes of the store: a snapshot and a merge need room.
)

// clusterStatus is the page of the whole cluster.
type clusterStatus struct {
	ClusterID string         `json:"cluster_id"`
	Leader    string         `json:"leader"` // Name; empty when nobody leads.
	Revision  int64          `json:"revision"`
	Voters    int            `json:"voters"`
	Answering int            `json:"answering_voters"`
	Margin    int            `json:"quorum_margin"` // Voters that may fail yet; negative: there is no quorum.
	Alarms    []string       `json:"alarms"`
	Backup    *backupStatus  `json:"backup,omitempty"`
	Plane     *planeStatus   `json:"control_plane,omitempty"`
	Members   []memberStatus `json:"members"`
	Problems  []string       `json:"problems"`
}

// backupStatus is what the member that archives says.
type backupStatus struct {
	By          string    `json:"by"`
	BehindBytes int64     `json:"behind_bytes"`
	LastBase    time.Time `json:"last_base,omitzero"`
	LastDrill   time.Time `json:"last_drill,omitzero"`
	Refused     bool      `json:"refused,omitempty"`
}

type memberStatus struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Endpoint string    `json:"endpoint"`
	Learner  bool      `json:"learner,omitempty"` // By the list of members, whether it answers or not.
	Role     string    `json:"role"`              // leader, follower, learner, down, or unstarted.
	Version  string    `json:"version"`
	Program  string    `json:"program,omitempty"` // Its version of holdfast.
	Lag      int64     `json:"lag"`               // Entries behind the leader's commit.
	Size     int64     `json:"db_size"`
	InUse    int64     `json:"db_size_in_use"`
	Quota    int64     `json:"quota"`
	DiskFree int64     `json:"disk_free,omitempty"`
	CertEnds time.Time `json:"certificate_ends,omitzero"`
	Error    string    `json:"error,omitempty"`

	metrics map[string]float64
	answer  *pb.StatusResponse
}

func (c *ctl) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Shows on one page how the cluster does",
		Long: `Shows the members, who leads, how far each is behind, how many may fail yet, disks,
alarms, when certificates end and how old the backup is, and what to do about what
is wrong. The exit code is 1 when something is.

What a member tells only as a metric (disk, certificate, backup) is left out where
its client URL does not answer HTTP, and for servers that are not holdfast.

Of members that are a control plane it shows the nodes too, whether evictions are held
because many nodes fell silent at once, and what waits for 'recover pods' after a restore.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 {
				return badArguments("status takes no arguments")
			}
			if err := c.needForm(formSimple, formJSON); err != nil {
				return err
			}
			st, err := c.clusterStatus(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.print(answer{json: st, simple: st.page}); err != nil {
				return err
			}
			if len(st.Problems) > 0 {
				return &exitError{code: exitFailed} // They are on the page.
			}
			return nil
		},
	}
}

// clusterStatus asks for the members, then each of them.
func (c *ctl) clusterStatus(ctx context.Context) (*clusterStatus, error) {
	ask := func(linearizable bool) (*pb.MemberListResponse, error) {
		cl, err := c.quickClient(c.globals.endpoints...)
		if err != nil {
			return nil, err
		}
		return askOf(ctx, c, cl, func(ctx context.Context, cl *client.Client) (*pb.MemberListResponse, error) {
			return cl.MemberList(ctx, linearizable)
		})
	}
	list, err := ask(true)
	if err != nil && !errors.Is(err, client.ErrUnreachable) { // There may be no quorum. Then the page says so.
		list, err = ask(false)
	}
	if err != nil {
		return nil, err
	}
	st := &clusterStatus{ClusterID: fmt.Sprintf("%x", list.Header.GetClusterId()), Alarms: []string{}, Problems: []string{}}
	st.Members = make([]memberStatus, len(list.Members))
	g := task.New(ctx)
	for i, m := range list.Members {
		g.Go("status", func(ctx context.Context) error {
			st.Members[i] = c.memberStatus(ctx, m)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, exit(exitFailed, err)
	}
	slices.SortFunc(st.Members, func(a, b memberStatus) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	st.join()
	st.judge(time.Now())
	return st, nil
}

func (c *ctl) memberStatus(ctx context.Context, m *pb.Member) memberStatus {
	s := memberStatus{ID: fmt.Sprintf("%x", m.ID), Name: m.Name, Learner: m.IsLearner, Role: "down"}
	if len(m.ClientURLs) == 0 {
		s.Role, s.Error = "unstarted", "it has never started"
		return s
	}
	for _, s.Endpoint = range m.ClientURLs {
		r, err := askOne(ctx, c, s.Endpoint, func(ctx context.Context, cl *client.Client) (*pb.StatusResponse, error) { return cl.Status(ctx) })
		if err != nil {
			s.Error = short(err)
			continue
		}
		s.answer, s.Error = r, strings.Join(r.Errors, ", ")
		s.Version, s.Size, s.InUse, s.Quota = r.Version, r.DbSize, r.DbSizeInUse, r.DbSizeQuota
		switch {
		case r.IsLearner:
			s.Role = "learner"
		case r.Leader == m.ID:
			s.Role = "leader"
		default:
			s.Role = "follower"
		}
		s.metrics = c.metricsOf(ctx, s.Endpoint)
		s.Program = programOf(s.metrics)
		s.DiskFree = int64(s.metrics["holdfast_disk_free_bytes"])
		s.CertEnds = moment(s.metrics["holdfast_certificate_expiry_timestamp_seconds"])
		if api := moment(s.metrics["controlplane_certificate_expiry_timestamp_seconds"]); !api.IsZero() && (s.CertEnds.IsZero() || api.Before(s.CertEnds)) {
			s.CertEnds = api // Of the API, where the member is part of a control plane.
		}
		return s
	}
	return s
}

// programOf is the label of a metric: which holdfast a member runs.
func programOf(metrics map[string]float64) string {
	for name := range metrics { //tidy:ordered there is one
		if label, ok := strings.CutPrefix(name, `holdfast_build_info{version="`); ok {
			return strings.TrimSuffix(label, `"}`)
		}
	}
	return ""
}

func moment(seconds float64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}

// metricsOf reads our metrics, by name and labels; nothing where they are not told.
func (c *ctl) metricsOf(ctx context.Context, endpoint string) map[string]float64 {
	if !strings.HasPrefix(endpoint, "http") {
		return nil
	}
	config, err := c.tls()
	if err != nil {
		return nil // Said when the member was asked.
	}
	t := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	if dial := c.dial; dial != nil {
		t.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }
	}
	ctx, cancel := c.limited(ctx)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(endpoint, "/")+"/metrics", nil)
	if err != nil {
		return nil
	}
	resp, err := (&http.Client{Transport: t}).Do(r)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	all := map[string]float64{}
	lines := bufio.NewScanner(io.LimitReader(resp.Body, statusPageMax))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil && (strings.HasPrefix(name, "holdfast_") || strings.HasPrefix(name, "controlplane_")) {
			all[name] = n
		}
	}
	return all
}

// join makes one picture of what the members say.
func (s *clusterStatus) join() {
	var commit uint64
	for i := range s.Members {
		m := &s.Members[i]
		if !m.Learner {
			s.Voters++
		}
		if m.answer == nil {
			continue
		}
		if !m.Learner {
			s.Answering++
		}
		if m.Role == "leader" {
			s.Leader = m.Name
		}
		s.Revision = max(s.Revision, m.answer.Header.GetRevision())
		commit = max(commit, m.answer.RaftIndex)
		for _, e := range m.answer.Errors {
			if strings.Contains(e, "alarm:") && !slices.Contains(s.Alarms, e) {
				s.Alarms = append(s.Alarms, e)
			}
		}
		if m.metrics["holdfast_archive_owner"] == 1 || m.metrics["holdfast_archive_refused"] == 1 {
			s.Backup = &backupStatus{
				By: m.Name, BehindBytes: int64(m.metrics["holdfast_archive_behind_bytes"]), Refused: m.metrics["holdfast_archive_refused"] == 1,
				LastBase: moment(m.metrics["holdfast_archive_last_base_timestamp_seconds"]), LastDrill: moment(m.metrics["holdfast_archive_last_drill_timestamp_seconds"]),
			}
		}
	}
	s.joinPlane()
	s.Margin = s.Answering - (s.Voters/2 + 1)
	for i := range s.Members {
		if m := &s.Members[i]; m.answer != nil {
			m.Lag = int64(commit - min(commit, m.answer.RaftAppliedIndex))
		}
	}
}

// alarmMends are alarms and what to do.
var alarmMends = map[string]string{
	"NOSPACE": "compact, 'defrag', then 'alarm disarm'",
	"CORRUPT": "see docs/operations/corruption.md",
}

// judge finds what is wrong, with its mend.
func (s *clusterStatus) judge(now time.Time) {
	problem := func(format string, args ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, args...)) }
	switch {
	case s.Margin < 0:
		problem("no quorum: %d of %d voters answer; start more of them, or see docs/operations/lost-quorum.md", s.Answering, s.Voters)
	case s.Leader == "":
		problem("nobody leads")
	case s.Margin == 0 && s.Voters > 2:
		problem("no voter may fail any more: bring those that are down back")
	}
	for _, a := range s.Alarms {
		mend := ""
		for name, m := range alarmMends {
			if strings.HasSuffix(a, name) {
				mend = ": " + m
			}
		}
		problem("%s is on%s", a, mend)
	}
	for i := range s.Members {
		s.Members[i].judge(now, problem)
	}
	if b := s.Backup; b != nil {
		b.judge(now, problem)
	}
	if s.Plane != nil {
		s.Plane.judge(now, problem)
	}
}

func (m *memberStatus) judge(now time.Time, problem func(format string, args ...any)) {
	who := m.Name
	if who == "" {
		who = m.ID
	}
	if m.answer == nil {
		mend := hints.Mend(m.Error, "start it, or see docs/operations/lost-member.md")
		problem("%s is %s: %s (%s)", who, m.Role, m.Error, mend)
		return
	}
	if m.Lag > statusLagMax {
		problem("%s is %d entries behind", who, m.Lag)
	}
	if m.Quota > 0 && m.Size*100/m.Quota >= statusQuotaMax {
		problem("%s: the store is at %d%% of its quota: compact and 'defrag', or raise --quota-backend-bytes", who, m.Size*100/m.Quota)
	}
	if m.DiskFree > 0 && m.DiskFree < statusFreeFactor*m.Size {
		problem("%s: %s are free on its disk, the store has %s", who, sizeText(m.DiskFree), sizeText(m.Size))
	}
	if left := m.CertEnds.Sub(now); !m.CertEnds.IsZero() && left < statusCertSoon {
		problem("%s: a certificate ends %s: put a new one into its place, no restart is needed", who, m.CertEnds.Format(time.RFC3339))
	}
}

func (b *backupStatus) judge(now time.Time, problem func(format string, args ...any)) {
	switch {
	case b.Refused:
		problem("nothing is archived: the object store keeps no conditions (docs/operations/object-stores.md)")
	case !b.LastBase.IsZero() && now.Sub(b.LastBase) > statusBackupOld:
		problem("the last base of the archive is of %s", b.LastBase.Format(time.RFC3339))
	}
	if !b.LastDrill.IsZero() && now.Sub(b.LastDrill) > statusDrillOld {
		problem("the last drill that succeeded is of %s: run 'archive verify'", b.LastDrill.Format(time.RFC3339))
	}
}

// page is the status for people.
func (s *clusterStatus) page(p *page) {
	now := time.Now()
	members := "members"
	if len(s.Members) == 1 {
		members = "member"
	}
	p.printf("cluster   %s, %d %s\n", s.ClusterID, len(s.Members), members)
	leader := s.Leader
	if leader == "" {
		leader = "none"
	}
	p.printf("leader    %s, revision %d\n", leader, s.Revision)
	if s.Margin < 0 {
		p.printf("quorum    lost: %d of %d voters answer\n", s.Answering, s.Voters)
	} else {
		p.printf("quorum    %d of %d voters answer, %d more may fail\n", s.Answering, s.Voters, s.Margin)
	}
	p.printf("alarms    %s\n", strings.Join(append(s.Alarms, "none")[:max(1, len(s.Alarms))], "; "))
	p.printf("backup    %s\n", s.Backup.text(now))
	if s.Plane != nil {
		s.Plane.page(p, now)
	}
	g := &grid{head: []string{"member", "role", "endpoint", "version", "program", "lag", "store", "of quota", "disk free", "certificate ends", "error"}}
	for _, m := range s.Members {
		row := []string{m.Name, m.Role, m.Endpoint, "", "", "", "", "", "", "", m.Error}
		if m.answer != nil {
			row[3], row[4], row[5], row[6] = m.Version, shortVersion(m.Program), fmt.Sprint(m.Lag), sizeText(m.Size)
			if m.Quota > 0 {
				row[7] = fmt.Sprintf("%d%%", m.Size*100/m.Quota)
			}
			if m.DiskFree > 0 {
				row[8] = sizeText(m.DiskFree)
			}
			if !m.CertEnds.IsZero() {
				row[9] = fmt.Sprintf("in %d days", int(m.CertEnds.Sub(now).Hours()/24))
			}
		}
		g.add(row...)
	}
	p.table(g)
	for _, problem := range s.Problems {
		p.printf("! %s\n", problem)
	}
}

// shortVersion leaves the commit of a version that is of none in particular.
func shortVersion(version string) string {
	parts := strings.Split(version, "-")
	if commit := parts[len(parts)-1]; len(parts) > 2 {
		return commit
	}
	return version
}

func (b *backupStatus) text(now time.Time) string {
	if b == nil {
		return "no member says that it archives"
	}
	base, drill := "no base since the start of that member", "no drill since then"
	if !b.LastBase.IsZero() {
		base = "last base " + ago(now.Sub(b.LastBase))
	}
	if !b.LastDrill.IsZero() {
		drill = "last drill " + ago(now.Sub(b.LastDrill))
	}
	return fmt.Sprintf("by %s: %s, %s wait, %s", b.By, base, sizeText(b.BehindBytes), drill)
}

func ago(d time.Duration) string {
	if d < time.Minute {
		return "less than a minute ago"
	}
	return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s") + " ago"
}
