package memory

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// process is a git that answers requests until its input ends.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	said bytes.Buffer
	wait func() error
}

// startProcess starts a git command, which inherits the open files.
func startProcess(cmd *exec.Cmd, inherited []*os.File, start Start) (p *process, err error) {
	p = &process{cmd: cmd}
	cmd.ExtraFiles, cmd.Stderr = inherited, &p.said
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 64<<10)
	if p.wait, err = start(cmd); err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	return p, nil
}

// ask sends a request, reads an answer of so many lines, and gives the last one. A git that
// does not answer is killed: if one of its files is a FIFO, git waits for ever.
func (p *process) ask(request string, lines int) (answer string, err error) {
	timer := time.AfterFunc(silence, func() { _ = p.cmd.Process.Kill() })
	_, err = io.WriteString(p.in, request)
	for ; lines > 0 && err == nil; lines-- {
		answer, err = p.out.ReadString('\n')
	}
	silent := !timer.Stop()
	if err == nil {
		return strings.TrimSuffix(answer, "\n"), nil
	}
	if end := p.end(); end != nil {
		err = end
	}
	if silent {
		err = fmt.Errorf("did not answer for %s", silence)
	}
	return "", explain("update-ref", p.said.String(), err)
}

// end ends the process. It may be called more than once.
func (p *process) end() (err error) {
	if p.wait != nil {
		_ = p.in.Close()
		_, _ = io.Copy(io.Discard, p.out)
		err = p.wait()
		p.wait = nil
	}
	return err
}
