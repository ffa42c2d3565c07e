package server

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Downgrade judges a version as etcd does: the one before this is the only one
// that can be gone back to. Nothing has to be prepared for that here, as each
// format names its version and is refused by name (docs/format): so there is
// never a downgrade under way, and to call it off is always well.
func (s *maintenanceService) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	if err := s.linearize(ctx); err != nil {
		return nil, toWire(err)
	}
	if r.Action == pb.DowngradeRequest_CANCEL {
		return s.downgradeAnswer(), nil
	}
	if _, ok := pb.DowngradeRequest_DowngradeAction_name[int32(r.Action)]; !ok {
		return nil, errUnknownMethod
	}
	major, minor, ok := parseVersion(r.Version)
	if !ok {
		return nil, errDowngradeFormat
	}
	ownMajor, ownMinor, _ := parseVersion(s.cfg.ProtocolVersion)
	if major != ownMajor || minor != ownMinor-1 {
		return nil, errDowngradeTarget
	}
	return s.downgradeAnswer(), nil
}

func (s *maintenanceService) downgradeAnswer() *pb.DowngradeResponse {
	major, minor, _ := parseVersion(s.cfg.ProtocolVersion)
	return &pb.DowngradeResponse{Header: s.header(), Version: fmt.Sprintf("%d.%d", major, minor)}
}

// parseVersion reads MAJOR.MINOR and MAJOR.MINOR.PATCH.
func parseVersion(s string) (major, minor int, ok bool) {
	s, _, _ = strings.Cut(s, "-")
	parts := strings.Split(s, ".")
	if len(parts) != 2 && len(parts) != 3 {
		return 0, 0, false
	}
	var numbers [3]int
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 31)
		if err != nil {
			return 0, 0, false
		}
		numbers[i] = int(n)
	}
	return numbers[0], numbers[1], true
}
