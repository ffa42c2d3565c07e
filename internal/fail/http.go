//go:build failpoints

package fail

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
)

const actionBytesMax = 1 << 10 // Nobody types more.

// Handler lists the places, and arms and clears them:
//
//	GET /                     the table
//	PUT /wal/sync/before      arms it with the action in the body
//	DELETE /wal/sync/before   clears it, and lets go of who pauses there
func Handler() http.Handler { return http.HandlerFunc(serve) }

func serve(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case r.Method == http.MethodGet && name == "":
		writeList(w)
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, actionBytesMax))
		if err == nil {
			err = Set(name, strings.TrimSpace(string(body)))
		}
		reply(w, err)
	case r.Method == http.MethodDelete:
		reply(w, Set(name, ""))
	default:
		w.Header().Set("Allow", "GET, PUT, DELETE")
		http.Error(w, "GET / lists failpoints, PUT /NAME arms one with the action in the body, DELETE /NAME clears it", http.StatusMethodNotAllowed)
	}
}

func reply(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func writeList(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tARMED\tPASSED\tFIRED\tWAITING\tWHERE")
	for _, s := range List() {
		action := s.Action
		if action == "" {
			action = "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\n", s.Name, action, s.Passed, s.Fired, s.Waiting, s.About)
	}
	_ = table.Flush() // Whoever asked went away.
}
