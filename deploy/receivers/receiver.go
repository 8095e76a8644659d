// Receive Lockbox's webhooks: verify each call, answer at once, and take each event once. Standard library only.
//
//	go run receiver.go 127.0.0.1:8080 webhook.secret
//
// The file holds the secret that Lockbox showed; while an old one is still valid, both, one a line. In production, put a
// proxy with TLS in front, and keep what was taken in your database, in one transaction with what you do because of it.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	mostBytes   = 256 * 1024
	mostSeconds = 300
	leastSecret = 24
)

type event struct {
	Sequence int64  `json:"sequence"`
	Type     string `json:"type"`
	Data     struct {
		State string `json:"state"`
	} `json:"data"`
}

type receiver struct {
	secrets [][]byte
	lock    sync.Mutex
	taken   map[string]bool
}

// isSigned says whether one of the signatures is ours, over this id, time and body, and no older than five minutes.
func (r *receiver) isSigned(id, sentAt, signatures string, body []byte) bool {
	at, err := strconv.ParseInt(sentAt, 10, 64)
	if age := time.Now().Unix() - at; err != nil || age > mostSeconds || age < -mostSeconds {
		return false
	}
	for _, secret := range r.secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(id + "." + sentAt + "."))
		mac.Write(body)
		ours := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		for _, given := range strings.Fields(signatures) {
			if hmac.Equal(ours, []byte(given)) {
				return true
			}
		}
	}
	return false
}

// handle does what the event is for. Never reopen what a higher sequence of the same request has ended.
func handle(one event) {
	state := one.Data.State
	if state == "" {
		state = "-"
	}
	fmt.Println(one.Sequence, one.Type, state)
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, call *http.Request) {
	if call.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, call.Body, mostBytes))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	id := call.Header.Get("webhook-id")
	if err != nil || !r.isSigned(id, call.Header.Get("webhook-timestamp"), call.Header.Get("webhook-signature"), body) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if !r.taken[id] { // it came before if our answer was lost
		var one event
		if json.Unmarshal(body, &one) != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		handle(one)
		r.taken[id] = true
	}
	w.WriteHeader(http.StatusNoContent)
}

func main() {
	r := &receiver{taken: map[string]bool{}}
	file, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	for _, one := range strings.Fields(string(file)) {
		secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(one, "whsec_"))
		if err != nil || len(secret) < leastSecret {
			log.Fatal("the file does not hold what Lockbox showed")
		}
		r.secrets = append(r.secrets, secret)
	}
	if len(r.secrets) == 0 {
		log.Fatal("the file does not hold what Lockbox showed")
	}
	server := &http.Server{Addr: os.Args[1], Handler: r, ReadTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
