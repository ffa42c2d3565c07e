package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

func (c *ctl) checkScale(ctx context.Context, f *checkFlags, load checkLoad) error {
	k, err := c.newCheck(ctx, f, load)
	if err != nil {
		return err
	}
	defer k.cl.Close()
	before, err := c.residentBytes(ctx, c.globals.endpoints[0])
	if err != nil {
		fmt.Fprintf(c.out, "FAIL: Could not read %s before the put operations.\n", residentMetric)
		return exit(exitFailed, err)
	}
	fmt.Fprintf(c.out, "Start data scale check for work load [%v key-value pairs, %v bytes per key-value, %v concurrent clients].\n",
		load.total, load.keyBytes+load.valBytes, load.clients)
	_, err = k.run(ctx, "writing")
	var after float64
	var metricErr error
	if err == nil {
		after, metricErr = c.residentBytes(ctx, c.globals.endpoints[0])
	}
	if err := k.finish(ctx, err); err != nil {
		return err
	}
	if metricErr != nil {
		fmt.Fprintf(c.out, "FAIL: Could not read %s after the put operations.\n", residentMetric)
		return exit(exitFailed, metricErr)
	}
	if k.printErrors() {
		return &exitError{code: exitFailed}
	}
	fmt.Fprintf(c.out, "PASS: Approximate system memory used : %.2f MB.\n", (after-before)/(1<<20))
	return nil
}

const (
	residentMetric  = "process_resident_memory_bytes"
	metricsBytesMax = 16 << 20
)

// residentBytes is the memory of a member, out of its page of metrics.
func (c *ctl) residentBytes(ctx context.Context, endpoint string) (float64, error) {
	config, err := c.tls()
	if err != nil {
		return 0, err
	}
	url := endpoint
	if !strings.Contains(url, "://") {
		url = "http://" + url
		if config != nil {
			url = "https://" + endpoint
		}
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	if c.dial != nil {
		transport.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) { return c.dial(ctx, address) }
	}
	ctx, cancel := c.limited(ctx)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	for s := bufio.NewScanner(io.LimitReader(answer.Body, metricsBytesMax)); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), residentMetric+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, errors.New(url + "/metrics has no " + residentMetric)
}
