package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/sluicerun/sluice/internal/retry"
)

// stallAfter is how long a server may say nothing at all. Servers that prepare a large pack send a sign of life every few
// seconds.
const stallAfter = 60 * time.Second

var errStalled = fmt.Errorf("the server said nothing for %v", stallAfter)

// session is a connection to the upload-pack service of one repository. It is used by one goroutine.
type session interface {
	// adverts are the references and abilities that the server began with.
	adverts() *packp.AdvRefs
	// send sends a request for objects and returns the response.
	send(ctx context.Context, request []byte) (io.ReadCloser, error)
	// failure explains an error of the connection by what else the server said.
	failure(err error) error
	// close ends the connection. Errors at that point change nothing.
	close()
}

// order is what is fetched.
type order struct {
	wants  []plumbing.Hash
	depth  int          // commits from each want; 0 is all
	filter packp.Filter // what to leave out
}

// errNotOurRef is the server's refusal of a commit that it does not have or does not give by its hash.
var errNotOurRef = errors.New("the server does not give this commit")

// receive fetches objects into a store and returns at which commits the history was cut off.
func receive(ctx context.Context, s session, want order, into storer.PackfileWriter) ([]plumbing.Hash, error) {
	abilities := s.adverts().Capabilities
	request := packp.NewUploadPackRequestFromCapabilities(abilities)
	request.Wants = append(request.Wants, want.wants...)
	request.Filter = want.filter
	needed := []capability.Capability{}
	if want.depth > 0 {
		request.Depth = packp.DepthCommits(want.depth)
		needed = append(needed, capability.Shallow)
	}
	if want.filter != "" {
		needed = append(needed, capability.Filter)
	}
	if abilities.Supports(capability.NoProgress) {
		needed = append(needed, capability.NoProgress)
	}
	for _, c := range needed {
		if err := request.Capabilities.Set(c); err != nil {
			return nil, err
		}
	}
	var body bytes.Buffer
	if err := request.UploadRequest.Encode(&body); err != nil {
		return nil, err
	}
	if err := pktline.NewEncoder(&body).EncodeString("done\n"); err != nil {
		return nil, err
	}
	stream, err := s.send(ctx, body.Bytes())
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	response := packp.NewUploadPackResponse(request)
	if err := response.Decode(stream); err != nil {
		return nil, refusal(s.failure(err))
	}
	var pack io.Reader = response
	switch {
	case request.Capabilities.Supports(capability.Sideband64k):
		pack = sideband.NewDemuxer(sideband.Sideband64k, response)
	case request.Capabilities.Supports(capability.Sideband):
		pack = sideband.NewDemuxer(sideband.Sideband, response)
	}
	if err := packfile.WritePackfileToObjectStorage(into, pack); err != nil {
		return nil, refusal(s.failure(fmt.Errorf("receiving objects: %w", err)))
	}
	return response.Shallows, nil
}

// refusal recognises what upload-pack says about a commit that it does not hand out.
func refusal(err error) error {
	if strings.Contains(err.Error(), "not our ref") || strings.Contains(err.Error(), "unadvertised object") {
		return fmt.Errorf("%w: %w", errNotOurRef, err)
	}
	return err
}

// readAdverts reads what a server begins with.
func readAdverts(r io.Reader) (*packp.AdvRefs, error) {
	var start bytes.Buffer
	adv := packp.NewAdvRefs()
	err := adv.Decode(io.TeeReader(bufio.NewReader(r), &limited{&start, 4096}))
	if strings.Contains(start.String(), "object-format=sha256") {
		return nil, retry.Permanent(failf(ErrUnsupportedRepository, "", "the repository uses SHA-256 object names; only SHA-1 repositories can be read"))
	}
	if errors.Is(err, packp.ErrEmptyAdvRefs) || err == nil && adv.IsEmpty() {
		return packp.NewAdvRefs(), nil
	}
	return adv, err
}

// limited keeps the first bytes and takes the rest without keeping it.
type limited struct {
	buffer *bytes.Buffer
	limit  int
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.limit - l.buffer.Len(); room > 0 {
		l.buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// watch returns a context that ends with errStalled when beat was not called for too long, and a function that ends the
// watching.
func watch(ctx context.Context) (watched context.Context, beat func(), stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(stallAfter, func() { cancel(errStalled) })
	return watched, func() { timer.Reset(stallAfter) }, func() {
		timer.Stop()
		cancel(nil)
	}
}

// watchedReader tells its watcher about everything that arrives.
type watchedReader struct {
	io.Reader
	beat  func()
	close func() error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.beat()
	}
	return n, err
}

func (w *watchedReader) Close() error { return w.close() }

// unreachable sorts an error of the network into ones that may pass and ones that will not.
func unreachable(ctx context.Context, l location, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		if !errors.Is(err, errStalled) {
			return retry.Permanent(err)
		}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return retry.Permanent(failf(ErrUnreachable, "check the repository's URL and this machine's DNS", "cannot reach %s: there is no host %q", l, l.host))
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		err = op.Err // without the addresses' repetition
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the connection ended early: %w", io.ErrUnexpectedEOF)
	}
	return failf(ErrUnreachable, "check the network, a proxy (HTTPS_PROXY) and the repository's URL", "cannot reach %s: %w", l, err)
}
