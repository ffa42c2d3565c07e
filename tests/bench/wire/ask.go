package wire

import (
	"errors"
	"fmt"
	"time"
)

// errDone ends Run of a connection that has what it wanted.
var errDone = errors.New("done")

// Ask makes one call as nobody, on a connection of its own.
func Ask(addr, path string, body []byte, limit time.Duration) ([]byte, error) {
	return Dialer{}.Ask(addr, path, body, limit)
}

// Ask makes one call on a connection of its own.
func (d Dialer) Ask(addr, path string, body []byte, limit time.Duration) ([]byte, error) {
	c, err := d.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.nc.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	return c.Ask(path, body)
}

// Ask makes one call and waits for its answer. No other may be under way.
func (c *Conn) Ask(path string, body []byte) ([]byte, error) {
	var answer []byte
	err := c.Stream(path, body, func(b []byte) error { answer = append(answer, b...); return nil })
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Stream makes one call and gives each of its answers to message, until the last.
// No other may be under way.
func (c *Conn) Stream(path string, body []byte, message func([]byte) error) error {
	call := &Call{
		Message: message,
		End: func(status int, text string) error {
			if status != 0 {
				return fmt.Errorf("%s: status %d: %s", path, status, text)
			}
			return errDone
		},
	}
	if err := c.Start(path, body, call, false); err != nil {
		return err
	}
	if err := c.Run(); err != errDone {
		return err
	}
	return nil
}
