package ring

import (
	"runtime"
	"sync/atomic"
	"testing"
)

func BenchmarkSameGoroutine(b *testing.B) {
	b.Run("spsc", func(b *testing.B) {
		q := NewSPSC[int](64)
		for b.Loop() {
			q.Push(1)
			q.Pop()
		}
	})
	b.Run("mpsc", func(b *testing.B) {
		q := NewMPSC[int](64)
		for b.Loop() {
			q.Push(1)
			q.Pop()
		}
	})
	b.Run("chan", func(b *testing.B) {
		q := make(chan int, 64)
		for b.Loop() {
			q <- 1
			<-q
		}
	})
}

// transfer moves b.N elements from a goroutine to this one.
func transfer(b *testing.B, push func(int) bool, pop func() (int, bool)) {
	n := b.N
	go func() {
		for i := 0; i < n; {
			if push(i) {
				i++
			} else {
				runtime.Gosched()
			}
		}
	}()
	b.ResetTimer()
	for i := 0; i < n; {
		if _, ok := pop(); ok {
			i++
		} else {
			runtime.Gosched()
		}
	}
}

func BenchmarkTransfer(b *testing.B) {
	b.Run("spsc", func(b *testing.B) { q := NewSPSC[int](1024); transfer(b, q.Push, q.Pop) })
	b.Run("mpsc", func(b *testing.B) { q := NewMPSC[int](1024); transfer(b, q.Push, q.Pop) })
	b.Run("chan", func(b *testing.B) {
		q := make(chan int, 1024)
		transfer(b, func(v int) bool { q <- v; return true }, func() (int, bool) { return <-q, true })
	})
}

// transferBatches moves b.N elements by 32.
func transferBatches(b *testing.B, pushN, popN func([]int) int) {
	n := b.N
	go func() {
		batch := make([]int, 32)
		for i := 0; i < n; {
			k := pushN(batch[:min(len(batch), n-i)])
			if k == 0 {
				runtime.Gosched()
			}
			i += k
		}
	}()
	batch := make([]int, 32)
	b.ResetTimer()
	for i := 0; i < n; {
		k := popN(batch)
		if k == 0 {
			runtime.Gosched()
		}
		i += k
	}
}

func BenchmarkTransferBatches(b *testing.B) {
	b.Run("spsc", func(b *testing.B) { q := NewSPSC[int](1024); transferBatches(b, q.PushN, q.PopN) })
	b.Run("mpsc", func(b *testing.B) { q := NewMPSC[int](1024); transferBatches(b, q.PushN, q.PopN) })
}

func BenchmarkBatch32SameGoroutine(b *testing.B) {
	batch := make([]int, 32)
	s, m := NewSPSC[int](64), NewMPSC[int](64)
	b.Run("spsc", func(b *testing.B) {
		for b.Loop() {
			s.PushN(batch)
			s.PopN(batch)
		}
	})
	b.Run("mpsc", func(b *testing.B) {
		for b.Loop() {
			m.PushN(batch)
			m.PopN(batch)
		}
	})
}

func BenchmarkRing(b *testing.B) {
	bell := NewBell()
	b.Run("consumer-awake", func(b *testing.B) {
		for b.Loop() {
			bell.Ring()
		}
	})
	b.Run("ring-and-answer", func(b *testing.B) {
		for b.Loop() {
			bell.Ring()
			bell.Wait(0)
		}
	})
	b.Run("wake-sleeper-and-back", func(b *testing.B) {
		there, back := NewBell(), NewBell()
		var stop atomic.Bool
		go func() {
			for !stop.Load() {
				there.Wait(0)
				back.Ring()
			}
		}()
		for b.Loop() {
			there.Ring()
			back.Wait(0)
		}
		stop.Store(true)
		there.Ring()
		back.Wait(0)
	})
}
