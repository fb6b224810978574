package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"sync/atomic"
)

const (
	blockHashes = 2048
	blockSize   = blockHashes * sha256.Size
	// writeSize keeps a counted write well below a stream window, so that the
	// count follows closely what the stream has taken.
	writeSize = 16 << 10
)

// pattern is size bytes of the repeated test block that a seed stands for.
type pattern struct {
	seed, size int64
	count      *atomic.Int64 // when set, counts the bytes written
}

// block returns the block, or just its first limit bytes.
func block(seed, limit int64) []byte {
	data := make([]byte, 0, blockSize)
	for i := 0; i < blockHashes && int64(len(data)) < limit; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%d:%d", seed, i))
		data = append(data, sum[:]...)
	}
	return data[:min(limit, int64(len(data)))]
}

// WriteTo implements io.WriterTo.
func (p *pattern) WriteTo(w io.Writer) (int64, error) {
	data := block(p.seed, p.size)
	var written int64
	for written < p.size {
		start := written % blockSize
		end := min(start+writeSize, int64(len(data)), start+p.size-written)
		count, err := w.Write(data[start:end])
		written += int64(count)
		if p.count != nil {
			p.count.Add(int64(count))
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
