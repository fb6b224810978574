package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

var errNotConnected = errors.New("not connected")

// identifyLog keeps what identify told on each open connection. The peerstore
// has most of it, but not the observed address.
type identifyLog struct {
	mu      sync.Mutex
	told    map[network.Conn]event.EvtPeerIdentificationCompleted
	failed  map[peer.ID]error
	changed chan struct{} // closed and replaced at every change
}

func newIdentifyLog() *identifyLog {
	return &identifyLog{
		told:    make(map[network.Conn]event.EvtPeerIdentificationCompleted),
		failed:  make(map[peer.ID]error),
		changed: make(chan struct{}),
	}
}

// follow records identify events for as long as the process runs.
func (l *identifyLog) follow(h host.Host) error {
	sub, err := h.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtPeerIdentificationFailed),
	})
	if err != nil {
		return fmt.Errorf("identify events: %w", err)
	}
	go func() {
		for evt := range sub.Out() {
			l.update(func() {
				switch evt := evt.(type) {
				case event.EvtPeerIdentificationCompleted:
					// A closed connection would never be taken out again.
					if !evt.Conn.IsClosed() {
						l.told[evt.Conn] = evt
					}
				case event.EvtPeerIdentificationFailed:
					l.failed[evt.Peer] = evt.Reason
				}
			})
		}
	}()
	return nil
}

// update makes one change and wakes everyone who waits for one.
func (l *identifyLog) update(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *identifyLog) connected(c network.Conn) {
	l.update(func() { delete(l.failed, c.RemotePeer()) })
}

func (l *identifyLog) disconnected(c network.Conn) {
	l.update(func() { delete(l.told, c) })
}

// wait returns what the peer told on one of its open connections.
func (l *identifyLog) wait(ctx context.Context, net network.Network, id peer.ID) (event.EvtPeerIdentificationCompleted, error) {
	var none event.EvtPeerIdentificationCompleted
	for {
		// In this order, a change after the look at the connections wakes us.
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		conns := net.ConnsToPeer(id)
		if len(conns) == 0 {
			return none, errNotConnected
		}
		if told, ok := l.find(conns); ok {
			return told, nil
		}
		if err := l.failure(id); err != nil {
			return none, fmt.Errorf("identify failed: %w", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return none, fmt.Errorf("identify did not finish: %w", ctx.Err())
		}
	}
}

func (l *identifyLog) find(conns []network.Conn) (event.EvtPeerIdentificationCompleted, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		if told, ok := l.told[c]; ok {
			return told, true
		}
	}
	return event.EvtPeerIdentificationCompleted{}, false
}

func (l *identifyLog) failure(id peer.ID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed[id]
}
