package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/pflag"
)

// get is what curl would be, in an image that has nothing but this program.
func get(args []string, stdout, stderr io.Writer) int {
	fs := pflag.NewFlagSet("get", pflag.ContinueOnError)
	fs.SetOutput(stderr)
	times := fs.IntP("times", "n", 1, "how often, each time over a connection of its own")
	limit := fs.Duration("timeout", getMax, "for each answer")
	if err := fs.Parse(args); err != nil {
		return exitUsage
	}
	if fs.NArg() != 1 || *times < 1 {
		fmt.Fprintln(stderr, "demo get: give one URL")
		return exitUsage
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	code := 0
	for range *times {
		if err := getOnce(client, fs.Arg(0), *limit, stdout); err != nil {
			fmt.Fprintf(stderr, "demo get: %v\n", err)
			code = exitFailed
		}
	}
	return code
}

func getOnce(client *http.Client, url string, limit time.Duration, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}
