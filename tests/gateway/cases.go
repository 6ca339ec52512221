package main

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
)

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// request is one request with a body of known length.
func request(method, path, body string, fields ...string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, path)
	for _, field := range fields {
		fmt.Fprintf(&out, "%s\r\n", field)
	}
	if body != "" {
		fmt.Fprintf(&out, "Content-Length: %d\r\n", len(body))
	}
	fmt.Fprintf(&out, "\r\n%s", body)
	return out.String()
}

func post(path, body string, fields ...string) string {
	return request("POST", path, body,
		fields...)
}
func get(path string, fields ...string) string { return request("GET", path, "", fields...) }

func chunked(path string, chunks ...string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
		path)
	for _, chunk := range chunks {
		fmt.Fprintf(&out, "%x\r\n%s\r\n", len(chunk), chunk)
	}
	return out.String() + "0\r\n\r\n"
}

func cases() []exchange {
	var all []exchange
	for _, part := range [][]exchange{calls(), mistakes(), values(), streams(), pages(), access(),
		protocol(), sockets(), recipes(), leavers()} {
		all = append(all, part...)
	}
	return all
}

func one(name, send string, masks ...mask) exchange {
	return exchange{name: name, send: send, answers: 1, masks: masks}
}

func numbers(names string) mask {
	return mask{regexp.MustCompile(`"(` + names + `)":"?\d+"?`), `"$1":"N"`}
}

func urls() mask { return mask{regexp.MustCompile(`127\.0\.0\.1:\d+`), "A"} }

// calls are RPCs as clients make them; they also build the keys that later cases read.
func calls() []exchange {
	a, b, z := b64("a"), b64("b"), b64("z")
	put := func(key, value string) string {
		return post("/v3/kv/put",
			`{"key":"`+key+`","value":"`+value+`"}`)
	}
	return []exchange{
		one("call/put", put(a, b64("one"))),
		one("call/put again with the previous", post("/v3/kv/put",
			`{"key":"`+a+`","value":"`+b64("two")+`","prev_kv":true}`)),
		one("call/put without a value", post("/v3/kv/put", `{"key":"`+b+`"}`)),
		one("call/range", post("/v3/kv/range", `{"key":"`+a+`"}`)),
		one("call/range of all", post("/v3/kv/range", `{"key":"AA==","range_end":"AA=="}`)),
		one("call/range in descending order", post("/v3/kv/range",
			`{"key":"`+a+`","range_end":"`+z+`","sort_order":"DESCEND","sort_target":"KEY","limit":"1"}`)),
		one("call/range of nothing", post("/v3/kv/range", `{"key":"`+b64("none")+`"}`)),
		one("call/count", post("/v3/kv/range", `{"key":"`+a+`","range_end":"`+z+`","count_only":true}`)),
		one("call/txn", post("/v3/kv/txn",
			`{"compare":[{"result":"EQUAL","target":"VALUE","key":"`+a+`",`+
				`"value":"`+b64("two")+`"}],"success":[{"request_put":{"key":"`+a+`",`+
				`"value":"`+b64("three")+`"}},{"request_range":{"key":"`+a+`"}}],`+
				`"failure":[{"request_delete_range":{"key":"`+a+`"}}]}`)),
		one("call/txn that fails", post("/v3/kv/txn",
			`{"compare":[{"target":"VERSION","key":"`+a+`","version":"0"}],`+
				`"failure":[{"request_delete_range":{"key":"`+b+`","prev_kv":true}},`+
				`{"request_txn":{"success":[{"request_range":{"key":"`+a+`"}}]}}]}`)),
		one("call/txn of nothing", post("/v3/kv/txn", `{}`)),
		one("call/deleterange", post("/v3/kv/deleterange", `{"key":"`+b64("none")+`"}`)),
		one("call/compaction", post("/v3/kv/compaction", `{"revision":"2"}`)),
		one("call/compacted already", post("/v3/kv/compaction", `{"revision":"2"}`)),
		one("call/range of a compacted revision", post("/v3/kv/range", `{"key":"`+a+`","revision":"1"}`)),
		one("call/range of a future revision", post("/v3/kv/range", `{"key":"`+a+`","revision":"1000"}`)),
		one("call/v3beta", post("/v3beta/kv/range", `{"key":"`+a+`"}`)),
		one("call/chunked", chunked("/v3/kv/range", `{"ke`, `y":"`, a+`"}`)),
		one("call/large value", put(b64("large"), strings.Repeat("QUFB", 2000))),
		one("call/large answer", post("/v3/kv/range", `{"key":"`+b64("large")+`"}`)),
		one("call/leased put of no lease", post("/v3/kv/put", `{"key":"`+a+`","lease":"77"}`)),
		one("call/member list", post("/v3/cluster/member/list", `{}`), urls(), numbers("ID")),
		one("call/status", post("/v3/maintenance/status", `{}`),
			numbers("dbSize|dbSizeInUse|raftIndex|raftAppliedIndex|raftTerm|leader")),
		one("call/alarms", post("/v3/maintenance/alarm", `{}`)),
		one("call/hashkv", post("/v3/maintenance/hashkv", `{}`)),
		one("call/hash", post("/v3/maintenance/hash", `{}`), numbers("hash")),
		one("call/lease grant", post("/v3/lease/grant", `{"TTL":"1000","ID":"7"}`)),
		one("call/lease ttl", post("/v3/lease/timetolive", `{"ID":"7","keys":true}`), numbers("TTL")),
		one("call/lease ttl at the other path", post("/v3/kv/lease/timetolive", `{"ID":"8"}`)),
		one("call/lease list", post("/v3/lease/leases", `{}`)),
		one("call/lease revoke", post("/v3/kv/lease/revoke", `{"ID":"7"}`)),
		one("call/lease revoke of none", post("/v3/lease/revoke", `{"ID":"7"}`)),
	}
}

// recipes are built on the other calls; what they write comes last, so that an RPC that is missing
// changes no other case's revision.
func recipes() []exchange {
	return []exchange{
		one("recipe/lock", post("/v3/lock/lock", `{"name":"`+b64("lock")+`"}`),
			mask{regexp.MustCompile(`"key":"[^"]*"`), `"key":"K"`}),
		one("recipe/election without a leader", post("/v3/election/leader",
			`{"name":"`+b64("election")+`"}`)),
	}
}

// leavers send nothing more before they have their answer. What does not wait for anything is not
// asked: who is first then is chance. They come last, for so is whether a lock's key was written
// before the server saw its client gone, and with it every revision behind.
func leavers() []exchange {
	leaver := func(name, send string) exchange {
		return exchange{name: "gone/" + name, send: send, gone: goneAtOnce}
	}
	lock := post("/v3/lock/lock", `{"name":"`+b64("lock")+`"}`)
	watch := post("/v3/watch", `{"create_request":{"key":"YQ=="}}`)
	cut := strings.Replace(lock, "}", "", 1)
	return []exchange{
		{name: "gone/watch", send: watch, gone: goneWithAnswer, answers: 1},
		leaver("lock", lock),
		leaver("lock of HTTP/1.0", strings.Replace(lock, "HTTP/1.1", "HTTP/1.0", 1)),
		leaver("lock twice", lock+lock),
		leaver("campaign", post("/v3/election/campaign", `{"name":"`+b64("lock")+`"}`)),
		leaver("observe", post("/v3/election/observe", `{"name":"`+b64("none")+`"}`)),
		leaver("cut", cut),
		leaver("mistake", post("/v3/lock/lock", `{x}`)),
		leaver("version", get("/version")),
		leaver("nothing", ""),
		leaver("half a line", "GET /ver"),
		leaver("half a line behind a request", get("/version")+"GET /ver"),
		leaver("half a head", "GET /version HTTP/1.1\r\nHo"),
		leaver("head without its end", "GET /version HTTP/1.1\r\nHost: h\r\n"),
	}
}

// nested is a transaction in a transaction, so many times.
func nested(depth int) string {
	return strings.Repeat(`{"success":[{"requestTxn":`, depth) + "{}" + strings.Repeat("}]}", depth)
}

func mistakes() []exchange {
	bodies := map[string]string{
		"empty key":            `{}`,
		"no body":              ``,
		"space":                `   `,
		"array":                `[]`,
		"null":                 `null`,
		"string":               `"x"`,
		"number":               `12`,
		"true":                 `true`,
		"letter":               `x`,
		"cut":                  `{"key":"Zm9v"`,
		"cut in a string":      `{"key":"Zm`,
		"cut in a literal":     `tru`,
		"wrong colon":          `{"key" "Zm9v"}`,
		"comma at the end":     `{"key":"Zm9v",}`,
		"more behind":          `{"key":"Zm9v"} tail`,
		"twice":                `{"key":"Zm9v","key":"Zm9v"}`,
		"unknown field":        `{"key":"Zm9v","other":{"a":[1,{"b":null}]}}`,
		"camel case":           `{"key":"Zm9v","rangeEnd":"Zm9w","keysOnly":true}`,
		"both styles":          `{"key":"Zm9v","rangeEnd":"Zm9w","range_end":"Zm9w"}`,
		"bad base64":           `{"key":"Zm9v!"}`,
		"base64 for URLs":      `{"key":"_-8"}`,
		"base64 unpadded":      `{"key":"Zg"}`,
		"base64 with line end": `{"key":"Zm\n9v"}`,
		"number for bytes":     `{"key":5}`,
		"object for bytes":     `{"key":{}}`,
		"array for bytes":      `{"key":["Zm9v"]}`,
		"null for bytes":       `{"key":null}`,
		"true for a number":    `{"key":"Zm9v","limit":true}`,
		"text for a number":    `{"key":"Zm9v","limit":"x"}`,
		"space in a number":    `{"key":"Zm9v","limit":" 1"}`,
		"fraction":             `{"key":"Zm9v","limit":1.5}`,
		"whole fraction":       `{"key":"Zm9v","limit":1.0}`,
		"exponent":             `{"key":"Zm9v","limit":1e2}`,
		"exponent in a text":   `{"key":"Zm9v","limit":"10e-1"}`,
		"too large":            `{"key":"Zm9v","limit":9223372036854775808}`,
		"too large a text":     `{"key":"Zm9v","limit":"9223372036854775808"}`,
		"negative":             `{"key":"Zm9v","limit":-1}`,
		"leading zero":         `{"key":"Zm9v","limit":"01"}`,
		"number for a bool":    `{"key":"Zm9v","serializable":1}`,
		"text for a bool":      `{"key":"Zm9v","serializable":"true"}`,
		"unknown enum":         `{"key":"Zm9v","sort_order":"SIDEWAYS"}`,
		"enum by number":       `{"key":"Zm9v","sort_order":2}`,
		"enum out of range":    `{"key":"Zm9v","sort_order":77}`,
		"enum as text number":  `{"key":"Zm9v","sort_order":"2"}`,
		"bad UTF-8":            "{\"key\":\"Zm9v\",\"x\":\"\xff\"}",
		"bad UTF-8 in a name":  "{\"ke\xff\":\"Zm9v\"}",
		"lone surrogate":       `{"key":"Zm9v","x":"\ud800"}`,
		"surrogates":           `{"key":"Zm9v","x":"\ud83d\ude00"}`,
		"bad escape":           `{"key":"\x"}`,
		"line end in a string": "{\"key\":\"a\nb\"}",
		"second line":          "{\n  \"key\": 5\n}",
		"deep":                 `{"x":` + strings.Repeat("[", 11000) + strings.Repeat("]", 11000) + `}`,
	}
	var all []exchange
	for name, body := range bodies {
		all = append(all, one("mistake/"+name, post("/v3/kv/range", body)))
	}
	list := map[string]string{
		"object for a list": `{"compare":{}}`,
		"number in a list":  `{"compare":[1]}`,
		"null in a list":    `{"success":[null]}`,
		"null for a list":   `{"compare":null}`,
		"both arms": `{"success":[{"request_put":{"key":"YQ=="},` +
			`"request_range":{"key":"YQ=="}}]}`,
		"no arm":            `{"success":[{}]}`,
		"both targets":      `{"compare":[{"key":"YQ==","version":"1","value":"YQ=="}]}`,
		"null arm":          `{"success":[{"request_put":null}]}`,
		"default in an arm": `{"compare":[{"key":"YQ==","target":"MOD","mod_revision":"0"}]}`,
		"put without a key": `{"success":[{"request_put":{}}]}`,
		"too many": `{"success":[` + strings.Repeat(`{"request_range":{"key":"YQ=="}},`,
			200) + `{"request_range":{"key":"YQ=="}}]}`,
		"key twice": `{"success":[{"request_put":{"key":"YQ=="}},{"request_put":{"key":"YQ=="}}]}`,
	}
	for name, body := range list {
		all = append(all, one("mistake/txn "+name, post("/v3/kv/txn", body)))
	}
	for _, depth := range []int{10, 127, 128, 129, 200, 300, 1700, 3333, 3334, 5000} {
		all = append(all, one(fmt.Sprintf("mistake/txn nested %d deep", depth),
			post("/v3/kv/txn", nested(depth))))
	}
	return append(all,
		one("mistake/unknown path", post("/v3/kv/nothing", `{}`)),
		one("mistake/only the prefix", post("/v3/", `{}`)),
		one("mistake/less than the prefix", post("/v3", `{}`)),
		one("mistake/less than the prefix, read", get("/v3?a=b")),
		one("mistake/slash at the end", post("/v3/kv/range/", `{}`)),
		one("mistake/upper case", post("/v3/KV/Range", `{}`)),
		one("mistake/escaped path", post("/v3/kv/r%61nge", `{"key":"YQ=="}`)),
		one("mistake/escaped slash", post("/v3%2Fkv/range", `{"key":"YQ=="}`)),
		one("mistake/GET", get("/v3/kv/range")),
		one("mistake/HEAD", request("HEAD", "/v3/kv/range", "")),
		one("mistake/PUT", request("PUT", "/v3/kv/range", `{}`)),
		one("mistake/GET of an unknown path", get("/v3/nothing")),
		one("mistake/v3alpha", post("/v3alpha/kv/range", `{}`)),
		one("mistake/overridden method", post("/v3/kv/range", `{"key":"YQ=="}`,
			"Content-Type: application/x-www-form-urlencoded", "X-HTTP-Method-Override: get")),
		one("mistake/form", post("/v3/kv/range", `{"key":"YQ=="}`,
			"Content-Type: application/x-www-form-urlencoded")),
		one("mistake/other type", post("/v3/kv/range", `{"key":"YQ=="}`,
			"Content-Type: text/plain", "Accept: text/html")),
		one("mistake/too large", post("/v3/kv/put",
			`{"key":"YQ==","value":"`+strings.Repeat("QUFB", 600_000)+`"}`)),
		one("mistake/far too large", post("/v3/kv/put",
			`{"key":"YQ==","value":"`+strings.Repeat("QUFB", 1_000_000)+`"}`)),
	)
}

// values are the ways to say a thing, and how it is said in return.
func values() []exchange {
	return []exchange{
		one("value/zero byte", post("/v3/kv/put", `{"key":"AAEC/w==","value":"/+8="}`)),
		one("value/read back", post("/v3/kv/range", `{"key":"AAEC_w"}`)),
		one("value/timeout", post("/v3/kv/range", `{"key":"YQ=="}`, "Grpc-Timeout: 10S")),
		one("value/timeout of too many digits", post("/v3/kv/range", `{"key":"YQ=="}`,
			"Grpc-Timeout: 100000000000n")),
		one("value/bad timeout", post("/v3/kv/range", `{"key":"YQ=="}`, "Grpc-Timeout: soon")),
		one("value/bad unit", post("/v3/kv/range", `{"key":"YQ=="}`, "Grpc-Timeout: 1x")),
		one("value/negative timeout", post("/v3/kv/range", `{"key":"YQ=="}`, "Grpc-Timeout: -1S")),
		one("value/metadata", post("/v3/kv/range", `{"key":"YQ=="}`,
			"Grpc-Metadata-Hasleader: true", "Grpc-Metadata-Client-Api-Version: 3.7")),
		one("value/trailers", post("/v3/kv/range", `{"key":"YQ=="}`, "TE: trailers")),
		one("value/trailers of an error", post("/v3/kv/range", `{}`, "TE: trailers")),
		one("value/authorization while auth is off", post("/v3/kv/range", `{"key":"YQ=="}`,
			"Authorization: Bearer x")),
	}
}

func streams() []exchange {
	stream := func(name, send string, lines int) exchange {
		return exchange{name: "stream/" + name, send: send, answers: 1, lines: lines}
	}
	create := `{"create_request":{"key":"YQ==","start_revision":"3"}}`
	return []exchange{
		stream("watch", post("/v3/watch", create), 2),
		stream("watch in chunks", chunked("/v3/watch", `{"create_`, `request":{"key":"YQ=="}}`), 1),
		stream("two watches", post("/v3/watch", create+"\n"+`{"create_request":{"key":"enp6"}}`), 3),
		stream("watch and cancel", post("/v3/watch",
			`{"create_request":{"key":"enp6","watch_id":"5"}} {"cancel_request":{"watch_id":"5"}}`), 2),
		stream("watch of a compacted revision", post("/v3/watch",
			`{"create_request":{"key":"YQ==","start_revision":"1"}}`), 2),
		stream("watch of a known number", post("/v3/watch",
			`{"create_request":{"key":"enp6",`+
				`"watch_id":"5"}}{"create_request":{"key":"enp6","watch_id":"5"}}`), 2),
		stream("watch, then a mistake", post("/v3/watch", `{"create_request":{"key":"enp6"}} x`), 1),
		stream("watch with an unknown field", post("/v3/watch",
			`{"create_request":{"key":"enp6","other":1},"more":2}`), 1),
		stream("keep-alive of no lease", post("/v3/lease/keepalive", `{"ID":"99"}`), 0),
		stream("keep-alive of nothing", post("/v3/lease/keepalive", ``), 0),
		one("stream/grant for keep-alive", post("/v3/lease/grant", `{"TTL":"100","ID":"9"}`)),
		stream("keep-alive twice", post("/v3/lease/keepalive", `{"ID":"9"}{"ID":"9"}`), 0),
		one("stream/watch by GET", get("/v3/watch")),
	}
}

func pages() []exchange {
	all := []exchange{
		one("page/debug vars by POST", post("/debug/vars", "")),
		one("page/root", get("/")),
		one("page/v2", get("/v2/keys")),
		one("page/detour", get("/a/../health")),
		one("page/double slash", get("//version?x=y")),
		one("page/double slash by POST", post("//version", "")),
		one("page/double slash by HEAD", request("HEAD", "//version", "")),
		one("page/version with a query", get("/version?a=b")),
		one("page/absolute", "GET http://localhost/version HTTP/1.1\r\nHost: other\r\n\r\n"),
		one("page/asterisk", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		{name: "page/metrics listener has no version", metrics: true, send: get("/version"), answers: 1},
		{name: "page/metrics listener has no vars", metrics: true, send: get("/debug/vars"), answers: 1},
		{name: "page/metrics listener has no gateway", metrics: true, send: post("/v3/kv/range",
			`{}`), answers: 1},
		{name: "page/metrics listener knows no origin", metrics: true, send: request("OPTIONS",
			"/health", ""), answers: 1},
	}
	paths := []string{
		"/version", "/health", "/health?serializable=true", "/health?exclude=NOSPACE&exclude=CORRUPT",
		"/health?exclude=", "/health/", "/healthz", "/livez", "/livez?verbose",
		"/livez?exclude=serializable_read&verbose",
		"/livez?exclude=unknown", "/livez/serializable_read", "/livez/serializable_read?verbose",
		"/livez/unknown", "/livez/",
		"/livez/linearizable_read", "/readyz", "/readyz/data_corruption", "/readyz/serializable_read",
		"/readyz/linearizable_read", "/readyz/non_learner?verbose", "/readyz/unknown",
		"/readyz?exclude=linearizable_read&exclude=data_corruption&exclude=non_learner&verbose",
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			all = append(all, one("page/"+method+" "+path, request(method, path, "")))
		}
		all = append(all, exchange{name: "page/metrics listener " + path, metrics: true,
			send: get(path), answers: 1})
	}
	return all
}

func access() []exchange {
	strict := func(name, send string) exchange {
		return exchange{name: "access/" + name, strict: true, send: send, answers: 1}
	}
	host := func(host, path string, fields ...string) string {
		return strings.Replace(get(path, fields...), "Host: localhost", "Host: "+host, 1)
	}
	return []exchange{
		one("access/options", request("OPTIONS", "/v3/kv/range", "", "Origin: http://a.example:80")),
		one("access/options of nothing", request("OPTIONS", "/nothing", "")),
		one("access/origin when all may", get("/version", "Origin: http://a.example:80")),
		strict("known host", host("known.example:1234", "/version")),
		strict("unknown host", host("evil.example", "/version")),
		strict("unknown host with a port", host("evil.example:2379", "/v3/kv/range")),
		strict("unknown host and OPTIONS", strings.Replace(host("evil.example", "/version"),
			"GET", "OPTIONS", 1)),
		strict("host in brackets", host("[::1]:80", "/version")),
		strict("empty host", host("", "/version")),
		strict("allowed origin", get("/version", "Origin: http://a.example:80")),
		strict("other origin", get("/version", "Origin: http://c.example:80")),
		strict("no origin", get("/version")),
		strict("preflight", request("OPTIONS", "/v3/kv/range", "", "Origin: http://b.example:80")),
		strict("preflight of another", request("OPTIONS", "/v3/kv/range", "",
			"Origin: http://c.example:80")),
		strict("error for an allowed origin", post("/v3/kv/range", `{}`, "Origin: http://a.example:80")),
	}
}

// protocol is HTTP/1 itself.
func protocol() []exchange {
	raw := func(name, send string) exchange { return exchange{name: "protocol/" + name, send: send} }
	version := "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
	body := `{"key":"YQ=="}`
	return []exchange{
		{name: "protocol/pipelined", send: version + post("/v3/kv/range", body) + version, answers: 3},
		{name: "protocol/pipelined behind chunks", send: chunked("/v3/kv/range", body) + version,
			answers: 2},
		{name: "protocol/tail of a body", send: post("/v3/kv/range", body+" more") + version, answers: 2},
		{name: "protocol/expect",
			send: "POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\n" +
				"Expect: 100-continue\r\nContent-Length: 14\r\n\r\n", then: body, answers: 2},
		{name: "protocol/expect nothing", send: get("/version", "Expect: 100-continue"), answers: 1},
		raw("expect something else", get("/version", "Expect: 200-ok")),
		raw("close", get("/version", "Connection: close")),
		raw("old", "GET /version HTTP/1.0\r\n\r\n"),
		raw("old with a host", "GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n"),
		{name: "protocol/old and kept",
			send: "GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", answers: 1},
		raw("no host", "GET /version HTTP/1.1\r\n\r\n"),
		raw("two hosts", "GET /version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
		raw("bad host", "GET /version HTTP/1.1\r\nHost: a b\r\n\r\n"),
		raw("bad escape", "GET /ver%zz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		raw("relative target", "GET version HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		raw("field without a colon", "GET /version HTTP/1.1\r\nHost: localhost\r\nbroken\r\n\r\n"),
		raw("bad length", "POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n"),
		raw("negative length",
			"POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"),
		raw("signed length",
			"POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\n"),
		raw("two lengths",
			"POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"+
				"Content-Length: 2\r\n\r\n"),
		{name: "protocol/same length twice",
			send: "POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n" +
				"Content-Length: 14\r\n\r\n" + body, answers: 1},
		raw("unknown encoding",
			"POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n"),
		raw("two encodings",
			"POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\n"+
				"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
		raw("bad chunk",
			"POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
		raw("bad end of a chunk",
			"POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\n"+
				"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n"),
		raw("head too large",
			"GET /version HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 1<<20+8192)+"\r\n\r\n"),
	}
}
