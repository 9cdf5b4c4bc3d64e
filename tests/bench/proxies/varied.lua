-- Each head is another one: nothing that was read of the last can be used again.
local number = 0
request = function()
  number = number + 1
  local headers = {
    ["Content-Type"] = "application/json",
    ["Authorization"] = "Bearer sk-bench-0123456789abcdef",
    ["X-Request-ID"] = "client-" .. number,
  }
  return wrk.format("POST", nil, headers, '{"x": 1.0}')
end
