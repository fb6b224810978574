package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multistream"
	"golang.org/x/sync/errgroup"
)

const (
	perfProtocol = "/perf/1.0.0"
	perfHeader   = 8
	// perfChunk is what is read at a time, and written unless a command says otherwise.
	perfChunk = 64 << 10
)

// perfBuffers spares short streams the making of a buffer each.
var perfBuffers = sync.Pool{New: func() any { return new([perfChunk]byte) }}

func servePerf(s network.Stream) error {
	var header [perfHeader]byte
	if _, err := io.ReadFull(s, header[:]); err != nil {
		return err
	}
	if _, err := readAway(s); err != nil {
		return err
	}
	return writeBlank(s, nil, int64(binary.BigEndian.Uint64(header[:])), perfChunk)
}

// readAway reads to the end and returns how much there was.
func readAway(r io.Reader) (int64, error) {
	buf := perfBuffers.Get().(*[perfChunk]byte)
	defer perfBuffers.Put(buf)
	// Without its ReaderFrom, which has a small buffer of its own.
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf[:])
}

// writeBlank writes first and then size bytes more, chunk bytes at a time.
func writeBlank(w io.Writer, first []byte, size, chunk int64) error {
	blank := make([]byte, min(chunk, int64(len(first))+size))
	copy(blank, first)
	for left := int64(len(first)) + size; left > 0; left -= int64(len(blank)) {
		blank = blank[:min(left, int64(len(blank)))]
		if _, err := w.Write(blank); err != nil {
			return err
		}
	}
	return nil
}

// perfOnce is one measurement on an open stream.
func perfOnce(s network.MuxedStream, upload, download, chunk int64) error {
	var header [perfHeader]byte
	binary.BigEndian.PutUint64(header[:], uint64(download))
	if err := writeBlank(s, header[:], upload, max(chunk, perfHeader)); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	received, err := readAway(s)
	if err == nil && received != download {
		err = fmt.Errorf("%d bytes came instead of %d", received, download)
	}
	return err
}

func (n *node) perf(ctx context.Context, req *request) (results, error) {
	total, parallel, chunk := max(req.Total, 1), max(req.Parallel, 1), req.Chunk
	if chunk <= 0 {
		chunk = perfChunk
	}
	latencies := make([]float64, total)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	start := time.Now()
	for i := range total {
		group.Go(func() error {
			opened := time.Now()
			err := n.exchange(ctx, req.Peer.ID, perfProtocol, func(s network.Stream) error {
				return perfOnce(s, req.Upload, req.Download, chunk)
			})
			latencies[i] = milliseconds(time.Since(opened))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return results{"seconds": time.Since(start).Seconds(), "latencies_ms": latencies}, nil
}

// connectMany connects again and again, from parallel hosts that do nothing else.
func (n *node) connectMany(ctx context.Context, req *request) (results, error) {
	info, err := peer.AddrInfoFromString(req.Addr)
	if err != nil {
		return nil, err
	}
	opts := n.opts
	opts.listen, opts.pubsub, opts.quiet = nil, "none", true
	workers := make([]*node, max(req.Parallel, 1))
	for i := range workers {
		if workers[i], err = newNode(ctx, opts, n.version, n.out); err != nil {
			return nil, err
		}
		defer workers[i].host.Close()
	}
	var started atomic.Int64
	latencies := make([]float64, req.Total)
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for _, worker := range workers {
		group.Go(func() error {
			for {
				number := started.Add(1)
				if number > int64(req.Total) {
					return nil
				}
				dialled := time.Now()
				if err := worker.connectOnce(ctx, req.Addr, info.ID, req.Identify); err != nil {
					return fmt.Errorf("connection %d: %w", number, err)
				}
				latencies[number-1] = milliseconds(time.Since(dialled))
				if err := worker.host.Network().ClosePeer(info.ID); err != nil {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return results{"seconds": time.Since(start).Seconds(), "latencies_ms": latencies}, nil
}

func (n *node) connectOnce(ctx context.Context, addr string, id peer.ID, identify bool) error {
	if _, err := n.dial(ctx, addr); err != nil {
		return err
	}
	conns := n.host.Network().ConnsToPeer(id)
	if len(conns) == 0 {
		return errors.New("the connection is gone already")
	}
	// Not the host's NewStream, which waits for identify first.
	s, err := conns[0].NewStream(ctx)
	if err != nil {
		return err
	}
	if err := multistream.SelectProtoOrFail(perfProtocol, s); err != nil {
		return err
	}
	if err := perfOnce(s, 0, 1, perfChunk); err != nil {
		return err
	}
	s.Close()
	if identify {
		_, err = n.identify(ctx, id)
	}
	return err
}

func milliseconds(d time.Duration) float64 {
	return float64(d) / float64(time.Millisecond)
}
