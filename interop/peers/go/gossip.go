package main

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"golang.org/x/sync/errgroup"
)

const (
	meshTopic        = "mesh"
	meshListen       = "/ip4/127.0.0.1/tcp/0"
	numberLength     = 8
	deliveryPatience = 10 * time.Second
	// meshSettles is two heartbeats: the meshes are what they will be.
	meshSettles = 2 * time.Second
	// burst is how many messages are published between two breaths: the package drops what its
	// queues have no room for.
	burst  = 64
	breath = time.Millisecond
)

// count is of the messages of a topic since somebody asked.
type count struct {
	received atomic.Int64
	last     atomic.Int64
	more     chan struct{}
}

func newCount() *count { return &count{more: make(chan struct{}, 1)} }

func (c *count) add() {
	c.last.Store(time.Now().UnixMicro())
	c.received.Add(1)
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// collect waits until total came, or none for the time of patience, and begins from zero.
func (c *count) collect(total int64, patience time.Duration) results {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for c.received.Load() < total {
		timer.Reset(patience)
		select {
		case <-c.more:
			continue
		case <-timer.C:
		}
		break
	}
	return results{"received": c.received.Swap(0), "ended": float64(c.last.Load()) / 1e6}
}

func (t *topics) publishMany(ctx context.Context, name string, total int, size int64) (results, error) {
	started := float64(time.Now().UnixMicro()) / 1e6
	for number := range total {
		if err := t.publish(ctx, name, make([]byte, size)); err != nil {
			return nil, err
		}
		if number%burst == burst-1 {
			time.Sleep(breath)
		}
	}
	return results{"started": started}, nil
}

// mesh is hosts of one process that all publish and subscribe to one topic.
type mesh struct {
	nodes []*node
	first int

	mu        sync.Mutex
	sent      []delivery
	latencies []float64
}

type delivery struct {
	published  time.Time
	missing    int
	everywhere chan struct{}
}

// newMesh runs nodes hosts, each of which dials the ones after it.
func newMesh(ctx context.Context, n *node, nodes, dials int) (*mesh, error) {
	m := &mesh{nodes: make([]*node, nodes)}
	opts := n.opts
	opts.pubsub, opts.quiet = "gossipsub", true
	listen, err := listenAddrs("tcp", []string{meshListen})
	if err != nil {
		return nil, err
	}
	opts.listen = listen
	for i := range m.nodes {
		if m.nodes[i], err = newNode(ctx, opts, n.version, n.out); err != nil {
			return nil, err
		}
	}
	for i, one := range m.nodes {
		for step := 1; step <= dials; step++ {
			if _, err := one.dial(ctx, m.nodes[(i+step)%nodes].dialAddrs()[0]); err != nil {
				return nil, err
			}
		}
	}
	for _, one := range m.nodes {
		topic, err := one.topics.pubsub.Join(meshTopic)
		if err != nil {
			return nil, err
		}
		one.topics.joined[meshTopic] = topic
		sub, err := topic.Subscribe(pubsub.WithBufferSize(queueSize))
		if err != nil {
			return nil, err
		}
		go m.takeAll(ctx, one, sub)
	}
	for _, one := range m.nodes {
		for len(one.topics.pubsub.ListPeers(meshTopic)) < 2*dials {
			time.Sleep(20 * time.Millisecond)
		}
	}
	time.Sleep(meshSettles)
	return m, nil
}

func (m *mesh) takeAll(ctx context.Context, one *node, sub *pubsub.Subscription) {
	self := one.host.ID()
	for {
		message, err := sub.Next(ctx)
		if err != nil {
			return
		}
		if message.GetFrom() != self {
			m.take(int(binary.BigEndian.Uint64(message.GetData())))
		}
	}
}

func (m *mesh) take(number int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if number < m.first {
		return // given up
	}
	one := &m.sent[number-m.first]
	m.latencies = append(m.latencies, milliseconds(time.Since(one.published)))
	one.missing--
	if one.missing == 0 {
		close(one.everywhere)
	}
}

// publishMany publishes, each time from another host, with at most parallel messages that have not reached everybody.
func (m *mesh) publishMany(ctx context.Context, total int, size int64, parallel int, rate float64) (results, error) {
	m.mu.Lock()
	m.first += len(m.sent)
	m.sent, m.latencies = make([]delivery, total), nil
	for i := range m.sent {
		m.sent[i] = delivery{missing: len(m.nodes) - 1, everywhere: make(chan struct{})}
	}
	m.mu.Unlock()
	var ended atomic.Int64
	started := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for number := range total {
		if rate > 0 {
			time.Sleep(time.Until(started.Add(time.Duration(float64(number) / rate * float64(time.Second)))))
		}
		group.Go(func() error {
			data := make([]byte, size)
			binary.BigEndian.PutUint64(data, uint64(m.first+number))
			m.mu.Lock()
			m.sent[number].published = time.Now()
			m.mu.Unlock()
			if err := m.nodes[number%len(m.nodes)].topics.publish(ctx, meshTopic, data); err != nil {
				return err
			}
			select {
			case <-m.sent[number].everywhere:
				ended.Store(int64(time.Since(started)))
			case <-time.After(deliveryPatience):
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return results{"seconds": time.Duration(ended.Load()).Seconds(), "latencies_ms": m.latencies}, nil
}

func (n *node) gossip(ctx context.Context, req *request) (results, error) {
	if n.topics == nil {
		return nil, errors.New("started with --pubsub none")
	}
	switch req.Cmd {
	case "publish_many":
		return n.topics.publishMany(ctx, req.Topic, req.Total, req.Size)
	case "collect":
		return n.topics.count(req.Topic).collect(int64(req.Total), time.Duration(req.Patience*float64(time.Second))), nil
	}
	n.meshMu.Lock()
	defer n.meshMu.Unlock()
	if n.mesh == nil {
		made, err := newMesh(ctx, n, req.Nodes, req.Dials)
		if err != nil {
			return nil, err
		}
		n.mesh = made
	}
	return n.mesh.publishMany(ctx, req.Total, req.Size, req.Parallel, req.Rate)
}
