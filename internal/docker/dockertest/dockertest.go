// Package dockertest is for tests: a server at a Unix socket that answers the
// questions of package docker as dockerd 20.10 does. TestRealDaemon of package docker
// checks that a real dockerd gives the same answers.
package dockertest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
)

// Daemon is what the server says of itself.
type Daemon struct {
	Version string   // "20.10.24+dfsg1" if it is empty
	ID      string   // the daemon's
	Swarm   string   // the swarm's ID; "" for a daemon that is not a swarm manager
	Stacks  []string // the stack of each service, "" for a service without a stack
}

// NoSwarm is dockerd 20.10's message when it is not a swarm manager.
const NoSwarm = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`

// Serve starts the server; stop ends it.
func (d Daemon) Serve(socket string) (stop func(), err error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: d} // as dockerd's own
	go server.Serve(listener)
	return func() { server.Close() }, nil
}

func (d Daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.Version == "" {
		d.Version = "20.10.24+dfsg1"
	}
	for name, value := range map[string]string{
		"Api-Version": "1.41", "Docker-Experimental": "false", "Ostype": "linux",
		"Server": "Docker/" + d.Version + " (linux)", "Content-Type": "application/json",
	} {
		w.Header().Set(name, value)
	}
	answer := map[string]any{}
	switch path := r.URL.Path; {
	case path == "/info":
		answer["ID"] = d.ID
	case path != "/swarm" && path != "/services" || r.Method != http.MethodGet:
		w.WriteHeader(http.StatusNotFound)
		answer["message"] = "page not found"
	case d.Swarm == "":
		w.WriteHeader(http.StatusServiceUnavailable)
		answer["message"] = NoSwarm
	case path == "/swarm":
		answer["ID"] = d.Swarm
		answer["JoinTokens"] = map[string]string{"Worker": "SWMTKN-1-secret", "Manager": "SWMTKN-1-secret"}
	default:
		services := []any{}
		for i, stack := range d.Stacks {
			labels := map[string]string{}
			if stack != "" {
				labels["com.docker.stack.namespace"] = stack
			}
			services = append(services, map[string]any{"ID": fmt.Sprint(i), "Spec": map[string]any{"Labels": labels}})
		}
		_ = json.NewEncoder(w).Encode(services)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}
