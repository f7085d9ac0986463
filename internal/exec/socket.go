package exec

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// The errors of [Converse] that are not the kernel's.
var (
	ErrSilent  = errors.New("does not answer in time")
	ErrEndless = errors.New("answers more than anybody asked for")
)

// Converse sends a request to the server at a Unix socket, and returns all that the
// server sends until it hangs up: at most limit bytes, and before the deadline. It
// replaces package net, which would make the start of each run slower.
func Converse(socket, request string, limit int, deadline time.Time) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	// Each call gets only the time that is left, so that neither a server that sends a
	// byte now and then, nor a signal that interrupts a call, extends the deadline.
	before := func(timeout int, call func() error) error {
		for {
			left := time.Until(deadline)
			if left <= 0 {
				return ErrSilent
			}
			wait := unix.NsecToTimeval(int64(max(left, time.Microsecond))) // 0 would mean no limit
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, timeout, &wait); err != nil {
				return err
			}
			if err := call(); err != unix.EINTR {
				if err == unix.EAGAIN {
					return ErrSilent
				}
				return err
			}
		}
	}
	if err := before(unix.SO_SNDTIMEO, func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: socket}) }); err != nil {
		return nil, err
	}
	for left := []byte(request); len(left) > 0; {
		err := before(unix.SO_SNDTIMEO, func() error {
			// A server that has hung up must not end this process by SIGPIPE.
			n, err := unix.SendmsgN(fd, left, nil, nil, unix.MSG_NOSIGNAL)
			left = left[max(n, 0):]
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	answer := make([]byte, 0, min(limit, 8<<10))
	for {
		if len(answer) == cap(answer) {
			answer = append(answer, 0)[:len(answer)]
		}
		n := 0
		err := before(unix.SO_RCVTIMEO, func() (err error) {
			n, err = unix.Read(fd, answer[len(answer):cap(answer)])
			return err
		})
		switch {
		case err != nil:
			return nil, err
		case n <= 0:
			return answer, nil
		}
		if answer = answer[:len(answer)+n]; len(answer) > limit {
			return nil, ErrEndless
		}
	}
}
