// Package proxy stands between a client and the API server of a test cluster. It writes down every request, and makes requests
// fail in the ways in which they fail in the field.
//
//	p := proxy.New(t, kubetest.Shared(t))
//	fault := p.Fail(proxy.Fault{
//		Match: proxy.To("patch", "deployments"), // the zero value: every request
//		Skip:  1,                                // let one such request pass
//		Times: 2,                                // then two fail; 0: all that follow
//		Do:    proxy.Answer(http.StatusTooManyRequests, 3),
//	})
//	… run something with p.Config(), or with the kubeconfig that p.WriteKubeconfig writes …
//	fault.Hits()     // how often it struck
//	p.Requests()     // what was sent, in order of arrival
//
// What a fault does, its Do, is one of:
//
//   - [Cut]: the connection ends before the server has seen the request;
//   - [CutAfter]: it ends when the server has answered, so that the client cannot know what became of its request;
//   - [Truncate]: it ends in the middle of the answer;
//   - [Answer]: the proxy answers itself, as the API server does with such a code, perhaps with Retry-After;
//   - [Reply]: the proxy answers itself, with whatever it is told;
//   - [Rewrite]: the server's answer is changed on its way;
//   - [Lines]: so is each line of it, as it passes: the events of a watch;
//   - [Warn]: the server's answer gets a warning, which the client handles in the goroutine that has asked;
//   - [Delay], [Hang]: the request is forwarded later, with Hang after Active.Release;
//   - [Call]: a function is called, and then the request is forwarded: the place to kill a process.
//
// Faults are tried in the order in which they were added. Those that only hold a request up let it go on to the next one.
// [Proxy.Down] is the API server gone, until [Active.Lift] brings it back; [Proxy.Sever] ends all connections once.
//
// Requests are counted under one lock as they arrive, so "the n-th request" is well defined as far as the client's own order is.
// Nothing waits by the clock, except Delay: a test that wants to know that a fault has struck asks Active.Await.
//
// The proxy acts at the server with the credentials of the configuration that it was made with; a client needs none of its own.
// Impersonation is passed on. It speaks HTTP/1.1 to its clients, so that a connection that is cut takes one request with it,
// not all. What it costs in time makes it unfit for a request that is timed; [Recorder.Wrap] counts inside a client instead.
//
// Everything here is safe for concurrent use. The package is for tests, and for the commands for people that measure.
package proxy
