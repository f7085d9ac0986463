package report

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"io/fs"
	"net/url"
	"regexp"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/sweep"
)

//go:embed pages
var files embed.FS

var (
	style     = string(read("style.css"))
	templates = template.Must(template.New("").Funcs(template.FuncMap{
		"name": name, "short": short, "length": length, "link": link, "plural": plural,
	}).ParseFS(files, "pages/*.html"))
	// form is of all that decides how a page is drawn, but for this program's code.
	form = func() string {
		h := sha256.New()
		names, _ := fs.Glob(files, "pages/*")
		for _, name := range names {
			data, _ := files.ReadFile(name)
			h.Write(data)
		}
		return string(h.Sum(nil))
	}()
)

func read(name string) []byte {
	data, err := files.ReadFile("pages/" + name)
	if err != nil {
		panic(err)
	}
	return data
}

// Policy is the content security policy of each page: nothing is loaded and nothing is
// executed, wherever it comes from. The one style is known by its hash; "data:" lets the
// page have the icon that is written in it.
var Policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; img-src data:; base-uri 'none'; form-action 'none'"
}()

// head is what all pages have above and below.
type head struct {
	Title   string
	Current string // of the navigation
	Nav     []nav
	Bad     bool // the icon says so
	Policy  string
	Style   template.CSS
	Foot    string
}

type nav struct{ File, Text string }

func (w *writing) head(title, current string) head {
	h := head{
		Title: title, Current: current, Policy: Policy, Style: template.CSS(style),
		Bad:  w.status.Totals[sweep.NewlyFailing]+w.status.Totals[sweep.StillFailing]+w.status.Totals[sweep.Damaged] > 0,
		Nav:  []nav{{"index.html", "Recipes"}, {"environments.html", "Environments"}, {"parity.html", "Parity"}, {"audit.html", "Audit"}},
		Foot: "cc-ci-run " + w.Version,
	}
	if w.Host != nil {
		h.Nav = append(h.Nav, nav{"host.html", "Host"})
	}
	return h
}

// render makes a page of a template.
func render(name string, data any) ([]byte, error) {
	var page, shown bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, data); err != nil {
		return nil, err
	}
	shown.Grow(page.Len() + 256)
	show(&shown, page.Bytes())
	return shown.Bytes(), nil
}

// recipeFile is the name of a recipe's page. A recipe called "index" is none of ours, so
// it begins with a prefix.
func recipeFile(recipe string) string { return "r-" + memory.Escape(recipe) + ".html" }

var fingerprint = regexp.MustCompile(`^[0-9a-f]{64}$`)

// envFile is the name of an environment's page, "" for what is no fingerprint.
func envFile(print string) string {
	if !fingerprint.MatchString(print) {
		return ""
	}
	return "env-" + print + ".html"
}

// link is a page's file as a relative URL: "%" is a character of the file's name.
func link(file string) string { return (&url.URL{Path: file}).EscapedPath() }

// keyFor is the key of a page: of how pages are drawn, and of what this one is made from.
func (w *writing) keyFor(of ...any) string {
	data, err := json.Marshal([]any{w.Version, w.Zone.String(), w.RecipeURL, w.BuildURL, w.Host != nil, of})
	if err != nil {
		panic(err) // of strings, numbers and times there is always JSON
	}
	return keyOf(append([]byte(form), data...))
}
