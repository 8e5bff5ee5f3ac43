package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// In the function's folder: how its program wants to be run.
	settingsFile = "shoal.json"
	// Most programs, and most calls at once in each.
	residentsMax   = 64
	callsAtOnceMax = 1024
	// Between two starts of a program that keeps ending.
	backOffMin = 100 * time.Millisecond
	backOffMax = 10 * time.Second
	// From there on calls are told that the program keeps ending; before, they wait for the next start.
	backOffTold = time.Second
	// A program that has lived so long has not ended because of its start.
	livedWell = 10 * time.Second
)

// staySettings say that the program stays alive and answers many calls.
type staySettings struct {
	// How many of it run, and how many calls each has at once.
	Programs    int `json:"programs"`
	CallsAtOnce int `json:"callsAtOnce"`
}

// readStaySettings reads what the function's folder says; nil: the program is started for every call.
func readStaySettings(dir string) (*staySettings, error) {
	file, err := os.Open(filepath.Join(dir, settingsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var settings struct {
		Stay *staySettings `json:"stay"`
	}
	in := json.NewDecoder(file)
	in.DisallowUnknownFields()
	if err := in.Decode(&settings); err != nil {
		return nil, fmt.Errorf("%s: %v", settingsFile, err)
	}
	stay := settings.Stay
	if stay == nil {
		return nil, nil
	}
	for _, each := range []struct {
		name  string
		value *int
		most  int
	}{{"programs", &stay.Programs, residentsMax}, {"callsAtOnce", &stay.CallsAtOnce, callsAtOnceMax}} {
		if *each.value == 0 {
			*each.value = 1
		}
		if *each.value < 1 || *each.value > each.most {
			return nil, fmt.Errorf("%s: %s must be 1 to %d", settingsFile, each.name, each.most)
		}
	}
	return stay, nil
}

// stay keeps the programs alive, and shares the calls out among them.
type stay struct {
	runner   *runner
	settings staySettings
	// told once, when the first program is ready or has failed to become it
	loaded func(error)
	once   sync.Once

	mu sync.Mutex
	// those that are ready
	residents []*resident
	// calls that wait for a place
	waiting []chan *resident
	// bytes of answers that wait for their callers without a place
	undelivered int
	// why calls need not wait: the program keeps ending
	problem string
	closed  bool
}

func startStay(r *runner, settings staySettings, loaded func(error)) *stay {
	s := &stay{runner: r, settings: settings, loaded: loaded}
	for at := 0; at < settings.Programs; at++ {
		go s.keep()
	}
	return s
}

// keep keeps one program alive.
func (s *stay) keep() {
	wait := backOffMin
	for {
		startedAt := time.Now()
		resident, err := startResident(s)
		if err == nil {
			err = resident.serve()
		}
		first := false
		s.once.Do(func() { first = true; s.loaded(err) })
		if first {
			// Nothing is there to be kept alive.
			s.close()
		}
		if s.isClosed() {
			return
		}
		if time.Since(startedAt) >= livedWell {
			wait = backOffMin
		}
		s.runner.logs.line(0, levelWarn, fmt.Sprintf("%v; it is started again in %v", err, wait))
		if wait >= backOffTold {
			s.setProblem("the program keeps ending: " + err.Error())
		}
		time.Sleep(wait)
		if wait *= 2; wait > backOffMax {
			wait = backOffMax
		}
	}
}

// answer answers a call by one of the programs.
func (s *stay) answer(c *call) {
	body, err := c.collect(stayBodyBytesMax)
	if err != nil {
		c.fail(kindLimit, err.Error())
		return
	}
	resident, err := s.acquire(c)
	switch {
	case err != nil:
		c.fail(kindNotReady, err.Error())
	case resident == nil:
		c.fail(kindCancelled, "cancelled")
	default:
		resident.answer(c, body)
	}
}

// acquire waits for a free place; nil: the call was cancelled meanwhile.
func (s *stay) acquire(c *call) (*resident, error) {
	if c.stopped() {
		return nil, nil
	}
	s.mu.Lock()
	if resident := s.freest(); resident != nil {
		resident.taken++
		s.mu.Unlock()
		return resident, nil
	}
	if len(s.residents) == 0 && s.problem != "" {
		defer s.mu.Unlock()
		return nil, errors.New(s.problem)
	}
	place := make(chan *resident, 1)
	s.waiting = append(s.waiting, place)
	s.mu.Unlock()
	select {
	case resident := <-place:
		if resident == nil {
			return nil, errors.New(s.problemText())
		}
		return resident, nil
	case <-c.cancelled:
		s.withdraw(place)
		return nil, nil
	}
}

// withdraw takes back a wait for a place, or the place when it has come meanwhile.
func (s *stay) withdraw(place chan *resident) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, each := range s.waiting {
		if each == place {
			s.waiting = append(s.waiting[:at], s.waiting[at+1:]...)
			return
		}
	}
	if resident := <-place; resident != nil {
		resident.taken--
		s.handOut()
	}
}

// freest is the program with the most free places; nil: none has one. The lock must be held.
func (s *stay) freest() *resident {
	var found *resident
	for _, each := range s.residents {
		if each.taken < s.settings.CallsAtOnce && (found == nil || each.taken < found.taken) {
			found = each
		}
	}
	return found
}

// handOut gives free places to the calls that wait. The lock must be held.
func (s *stay) handOut() {
	for len(s.waiting) > 0 {
		resident := s.freest()
		if resident == nil {
			return
		}
		resident.taken++
		s.waiting[0] <- resident
		s.waiting = s.waiting[1:]
	}
}

func (s *stay) release(resident *resident) {
	s.mu.Lock()
	resident.taken--
	s.handOut()
	s.mu.Unlock()
}

// hold counts the bytes of an answer that gives its place back before its caller has taken it (negative: it has); false: there
// are too many such already.
func (s *stay) hold(bytes int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes > 0 && s.undelivered+bytes > undeliveredBytesMax {
		return false
	}
	s.undelivered += bytes
	return true
}

// join: a program is ready.
func (s *stay) join(resident *resident) {
	if s.isClosed() {
		resident.end()
		return
	}
	s.mu.Lock()
	s.residents = append(s.residents, resident)
	s.problem = ""
	s.handOut()
	s.mu.Unlock()
	s.once.Do(func() { s.loaded(nil) })
}

// leave: a program has ended, or is about to.
func (s *stay) leave(resident *resident) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, each := range s.residents {
		if each == resident {
			s.residents = append(s.residents[:at], s.residents[at+1:]...)
			return
		}
	}
}

// setProblem tells the calls that wait, and those that come, unless another program is ready.
func (s *stay) setProblem(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.residents) > 0 {
		return
	}
	s.problem = text
	for _, each := range s.waiting {
		each <- nil
	}
	s.waiting = nil
}

func (s *stay) problemText() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}

func (s *stay) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// close ends the programs.
func (s *stay) close() {
	s.mu.Lock()
	s.closed = true
	residents := append([]*resident(nil), s.residents...)
	s.mu.Unlock()
	var ends sync.WaitGroup
	for _, each := range residents {
		ends.Add(1)
		go func(one *resident) { defer ends.Done(); one.end(); <-one.gone }(each)
	}
	ends.Wait()
}
