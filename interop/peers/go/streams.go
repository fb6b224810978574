package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/sync/errgroup"
)

const (
	echoProtocol   = "/interop/echo/1.0.0"
	digestProtocol = "/interop/digest/1.0.0"
	resetProtocol  = "/interop/reset/1.0.0"
	watchProtocol  = "/interop/watch/1.0.0"
	sinkProtocol   = "/interop/sink/1.0.0"
)

// streamSize is what each stream of the streams command carries.
const streamSize = 100

// greeting is the 4 bytes that the reset and watch protocols start with.
var greeting = []byte("ping")

// serve wraps a handler: a stream ends cleanly or, after an error, with a
// reset, so that the other side never mistakes a failure for an end of file.
func serve(handler func(network.Stream) error) network.StreamHandler {
	return func(s network.Stream) {
		if err := handler(s); err != nil {
			log.Printf("%s from %s: %v", s.Protocol(), s.Conn().RemotePeer(), err)
			s.Reset()
			return
		}
		s.Close()
	}
}

func (n *node) serveStreams() {
	n.host.SetStreamHandler(echoProtocol, serve(serveEcho))
	n.host.SetStreamHandler(digestProtocol, serve(func(s network.Stream) error {
		return answerDigest(s, s)
	}))
	n.host.SetStreamHandler(resetProtocol, serveReset)
	n.host.SetStreamHandler(watchProtocol, serve(n.serveWatch))
	n.host.SetStreamHandler(sinkProtocol, serve(n.serveSink))
	n.host.SetStreamHandler(perfProtocol, serve(servePerf))
}

// serveEcho reads no further than it can write: io.Copy's one small buffer is
// all it holds, so back-pressure reaches the sender.
func serveEcho(s network.Stream) error {
	_, err := io.Copy(s, s)
	return err
}

func serveReset(s network.Stream) {
	if _, err := io.ReadFull(s, make([]byte, len(greeting))); err != nil {
		log.Printf("%s from %s: %v", s.Protocol(), s.Conn().RemotePeer(), err)
	}
	s.Reset()
}

func (n *node) serveWatch(s network.Stream) error {
	buf := make([]byte, len(greeting))
	if _, err := io.ReadFull(s, buf); err != nil {
		return err
	}
	if _, err := s.Write(buf); err != nil {
		return err
	}
	outcome, err := readOutcome(s)
	if err != nil {
		return err
	}
	n.watchMu.Lock()
	defer n.watchMu.Unlock()
	n.watch = append(n.watch, outcome)
	return nil
}

func (n *node) serveSink(s network.Stream) error {
	sunk := new(atomic.Int64)
	n.sunk.Store(sunk)
	return answerDigest(s, &gatedReader{reader: s, gate: n.sinkGate, count: sunk})
}

func answerDigest(w io.Writer, r io.Reader) error {
	digest := sha256.New()
	if _, err := io.Copy(digest, r); err != nil {
		return err
	}
	_, err := io.WriteString(w, hexSum(digest))
	return err
}

// gatedReader reads nothing while the gate is held and counts what it reads.
type gatedReader struct {
	reader io.Reader
	gate   *gate
	count  *atomic.Int64
}

func (r *gatedReader) Read(buf []byte) (int, error) {
	r.gate.wait()
	count, err := r.reader.Read(buf)
	r.count.Add(int64(count))
	return count, err
}

// gate lets everyone through until it is held.
type gate struct {
	mu       sync.Mutex
	held     bool
	released *sync.Cond
}

func newGate() *gate {
	g := new(gate)
	g.released = sync.NewCond(&g.mu)
	return g
}

func (g *gate) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = true
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	g.released.Broadcast()
}

func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.held {
		g.released.Wait()
	}
}

// readOutcome tells how the other side goes on. A lost connection is an error
// and neither eof nor reset, though go-libp2p's error for it can match both
// io.EOF (the end of the connection, wrapped) and network.ErrReset.
func readOutcome(s network.Stream) (string, error) {
	count, err := s.Read(make([]byte, 1))
	if count > 0 {
		return "data", nil
	}
	var reset *network.StreamError
	switch {
	case err == io.EOF: // bare, as io.Reader demands; see above
		return "eof", nil
	case errors.As(err, &reset) && reset.Remote:
		return "reset", nil
	default:
		return "", err
	}
}

// openStream opens a stream on a connection that is already there.
func (n *node) openStream(ctx context.Context, id peer.ID, proto protocol.ID) (network.Stream, error) {
	return n.host.NewStream(network.WithNoDial(ctx, "only existing connections"), id, proto)
}

// exchange opens a stream and gives it to use, closing or resetting it after.
func (n *node) exchange(ctx context.Context, id peer.ID, proto protocol.ID, use func(network.Stream) error) error {
	s, err := n.openStream(ctx, id, proto)
	if err != nil {
		return err
	}
	if err := use(s); err != nil {
		s.Reset()
		return err
	}
	return s.Close()
}

// writeAll sends everything and half-closes.
func writeAll(s network.Stream, source io.WriterTo) error {
	if _, err := source.WriteTo(s); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return s.CloseWrite()
}

func (n *node) echo(ctx context.Context, id peer.ID, seed, size int64) (results, error) {
	start := time.Now()
	digest := sha256.New()
	var received int64
	err := n.exchange(ctx, id, echoProtocol, func(s network.Stream) error {
		written := make(chan error, 1)
		go func() {
			err := writeAll(s, &pattern{seed: seed, size: size})
			if err != nil {
				// Otherwise the reader would wait for bytes nobody sends.
				s.Reset()
			}
			written <- err
		}()
		var err error
		received, err = io.Copy(digest, s)
		if err != nil {
			// Nor may the writer wait for a window nobody opens.
			s.Reset()
		}
		return errors.Join(<-written, err)
	})
	if err != nil {
		return nil, err
	}
	return results{
		"sha256":  hexSum(digest),
		"bytes":   received,
		"seconds": time.Since(start).Seconds(),
	}, nil
}

func (n *node) streams(ctx context.Context, id peer.ID, total, parallel int) (results, error) {
	if parallel < 1 {
		return nil, errors.New("parallel must be at least 1")
	}
	var completed atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i := range total {
		group.Go(func() error {
			// A seed of its own for each stream makes mixed-up streams visible.
			if err := n.echoOnce(ctx, id, int64(i)); err != nil {
				return fmt.Errorf("stream %d: %w", i, err)
			}
			completed.Add(1)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("%d of %d completed: %w", completed.Load(), total, err)
	}
	return results{"completed": completed.Load()}, nil
}

func (n *node) echoOnce(ctx context.Context, id peer.ID, seed int64) error {
	var want bytes.Buffer
	if _, err := (&pattern{seed: seed, size: streamSize}).WriteTo(&want); err != nil {
		return err
	}
	return n.exchange(ctx, id, echoProtocol, func(s network.Stream) error {
		if err := writeAll(s, bytes.NewReader(want.Bytes())); err != nil {
			return err
		}
		got, err := io.ReadAll(s)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want.Bytes()) {
			return fmt.Errorf("%d bytes came back that differ from the %d sent", len(got), want.Len())
		}
		return nil
	})
}

// sendForText sends the pattern, half-closes and reads the answer as text.
func (n *node) sendForText(ctx context.Context, id peer.ID, proto protocol.ID, source *pattern) (string, error) {
	var response []byte
	err := n.exchange(ctx, id, proto, func(s network.Stream) error {
		if err := writeAll(s, source); err != nil {
			return err
		}
		var err error
		response, err = io.ReadAll(s)
		return err
	})
	return string(response), err
}

func (n *node) halfClose(ctx context.Context, id peer.ID, seed, size int64) (results, error) {
	response, err := n.sendForText(ctx, id, digestProtocol, &pattern{seed: seed, size: size})
	if err != nil {
		return nil, err
	}
	return results{"response": response}, nil
}

func (n *node) push(ctx context.Context, id peer.ID, seed, size int64) (results, error) {
	start := time.Now()
	pushed := new(atomic.Int64)
	n.pushed.Store(pushed)
	response, err := n.sendForText(ctx, id, sinkProtocol, &pattern{seed: seed, size: size, count: pushed})
	if err != nil {
		return nil, err
	}
	return results{"response": response, "seconds": time.Since(start).Seconds()}, nil
}

func (n *node) expectReset(ctx context.Context, id peer.ID) (results, error) {
	s, err := n.openStream(ctx, id, resetProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if _, err := s.Write(greeting); err != nil {
		return nil, err
	}
	outcome, err := readOutcome(s)
	if err != nil {
		return nil, err
	}
	return results{"outcome": outcome}, nil
}

func (n *node) sendReset(ctx context.Context, id peer.ID) error {
	s, err := n.openStream(ctx, id, watchProtocol)
	if err != nil {
		return err
	}
	defer s.Reset()
	if _, err := s.Write(greeting); err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, len(greeting)))
	return err
}

func (n *node) status() results {
	n.watchMu.Lock()
	defer n.watchMu.Unlock()
	return results{
		"pushed": n.pushed.Load().Load(),
		"sunk":   n.sunk.Load().Load(),
		"watch":  slices.Clone(n.watch),
	}
}

func hexSum(digest hash.Hash) string {
	return hex.EncodeToString(digest.Sum(nil))
}
