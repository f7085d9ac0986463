package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"cc-ci-run/e2e/internal/wrap"
)

// startLimit is how long Drone may take to answer.
const startLimit = time.Minute

// forge is the Gitea whose pushes start builds, and its administrator.
type forge struct{ url, user, password string }

// drone is a Drone server in a directory of its own: newDrone makes the directory,
// start starts the server and logs in, and stop, which must be called, stops the
// server and removes the directory.
type drone struct {
	forge   forge
	program string
	dir     string
	host    string // with the port
	token   string // of the forge's user
	secret  string // of runners
	end     func() // stops the server and waits for its end
}

func newDrone(programs string, f forge) (*drone, error) {
	if f.url == "" || f.user == "" || f.password == "" {
		return nil, errors.New("GITEA_URL, GITEA_USER or GITEA_PASSWORD is not set: run with-drone as the COMMAND of with-gitea")
	}
	program, err := filepath.Abs(filepath.Join(programs, "drone-server"))
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(program); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("there is no %s: e2e/build-drone makes it", program)
	}
	port, err := wrap.FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "with-drone-")
	if err != nil {
		return nil, err
	}
	return &drone{
		forge: f, program: program, dir: dir, host: fmt.Sprintf("127.0.0.1:%d", port),
		token: rand.Text(), secret: rand.Text(), end: func() {},
	}, nil
}

func (d *drone) url() string { return "http://" + d.host }

// variables are those that COMMAND gets.
func (d *drone) variables() []string {
	return []string{
		"DRONE_SERVER=" + d.url(), "DRONE_TOKEN=" + d.token,
		"DRONE_RPC_PROTO=http", "DRONE_RPC_HOST=" + d.host, "DRONE_RPC_SECRET=" + d.secret,
	}
}

// start starts the server, waits until it answers, and logs in. Nothing of the
// caller's environment reaches the server.
func (d *drone) start(ctx context.Context) error {
	id, secret, err := d.register(ctx)
	if err != nil {
		return fmt.Errorf("%s did not take Drone as an application: %w", d.forge.url, err)
	}
	d.end, err = wrap.Server{
		Name: "Drone", Log: d.dir + "/drone.log", Healthy: d.url() + "/healthz", Limit: startLimit,
		Command: func(ctx context.Context) *exec.Cmd {
			cmd := wrap.Endable(ctx, d.program)
			cmd.Dir = d.dir
			cmd.Env = []string{
				"HOME=" + d.dir,
				"DRONE_SERVER_PROTO=http", "DRONE_SERVER_HOST=" + d.host, "DRONE_SERVER_PORT=" + d.host, // the address it listens on
				"DRONE_GITEA_SERVER=" + d.forge.url, "DRONE_GITEA_CLIENT_ID=" + id, "DRONE_GITEA_CLIENT_SECRET=" + secret,
				"DRONE_RPC_SECRET=" + d.secret,
				"DRONE_USER_CREATE=username:" + d.forge.user + ",admin:true,token:" + d.token,
				"DRONE_DATABASE_DATASOURCE=" + d.dir + "/core.sqlite",
			}
			return cmd
		},
	}.Start(ctx)
	if err != nil {
		return err
	}
	if err := d.login(ctx); err != nil {
		return fmt.Errorf("%s could not log in to Drone: %w", d.forge.user, err)
	}
	return nil
}

// register makes Drone an application of Gitea's, whose users Gitea may send there.
func (d *drone) register(ctx context.Context) (id, secret string, err error) {
	body, err := json.Marshal(map[string]any{"name": "Drone", "redirect_uris": []string{d.url() + "/login"}, "confidential_client": true})
	if err != nil {
		return "", "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.forge.url+"/api/v1/user/applications/oauth2", bytes.NewReader(body))
	if err != nil {
		return "", "", err
	}
	request.SetBasicAuth(d.forge.user, d.forge.password)
	request.Header.Set("Content-Type", "application/json")
	_, text, err := answer(newClient(), request)
	if err != nil {
		return "", "", err
	}
	var application struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	err = json.Unmarshal(text, &application)
	return application.ID, application.Secret, err
}

// hiddenInput is a field that a page's form sends unseen.
var hiddenInput = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)

// login does what a person does in a browser: asks Drone, which sends to Gitea,
// types name and password there, and lets Drone act for this user. Only then Drone
// has a token with which it reads repositories and sets a commit's status.
func (d *drone) login(ctx context.Context) error {
	client := newClient()
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url()+"/login", nil)
	if err != nil {
		return err
	}
	if _, _, err = answer(client, get); err != nil {
		return err
	}
	post := func(path string, values url.Values) (string, []byte, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.forge.url+path, bytes.NewBufferString(values.Encode()))
		if err != nil {
			return "", nil, err
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return answer(client, request)
	}
	_, page, err := post("/user/login", url.Values{"user_name": {d.forge.user}, "password": {d.forge.password}})
	if err != nil {
		return err
	}
	grant := url.Values{"granted": {"true"}}
	for _, input := range hiddenInput.FindAllSubmatch(page, -1) {
		grant.Set(string(input[1]), html.UnescapeString(string(input[2])))
	}
	where, _, err := post("/login/oauth/grant", grant)
	if err != nil {
		return err
	}
	if where != d.url()+"/" {
		return fmt.Errorf("the log-in ended at %s, should have ended at %s/", where, d.url())
	}
	return nil
}

// newClient is a browser with cookies. No proxy: this is loopback, whatever
// http_proxy says.
func newClient() *http.Client {
	jar, _ := cookiejar.New(nil) // fails never
	return &http.Client{Timeout: startLimit, Jar: jar, Transport: &http.Transport{}}
}

// answer is the page to which a request leads, and that page's URL.
func answer(client *http.Client, request *http.Request) (where string, page []byte, err error) {
	response, err := client.Do(request)
	if err != nil {
		return "", nil, err
	}
	defer response.Body.Close()
	page, err = io.ReadAll(response.Body)
	where = response.Request.URL.String()
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s answered %s: %.300s", where, response.Status, page)
	}
	return where, page, err
}

func (d *drone) stop() {
	d.end()
	_ = os.RemoveAll(d.dir)
}
