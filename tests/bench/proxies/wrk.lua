-- One prediction, as a client of the gateway sends it.
wrk.method = "POST"
wrk.body = '{"x": 1.0}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-bench-0123456789abcdef"
