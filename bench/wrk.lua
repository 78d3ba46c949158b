-- Sends prepared requests, or a chain of refreshes, and says what came of it as one line of JSON.
--
-- Arguments: a file of prepared requests ("<length>\n<bytes>" each), "list" or "chain", and the number of threads. A list
-- is dealt out to the threads and sent again from its start when it ends. Of a chain each thread takes the request of its
-- number, and then asks with the refresh token of each answer; it takes one connection a thread.

local threads = 0

function setup(thread)
   thread:set("number", threads)
   threads = threads + 1
end

local function prepared(name, every, first)
   local requests, at = {}, 0
   local file = assert(io.open(name, "rb"))
   while true do
      local length = file:read("*n", "*l")
      if not length then break end
      local request = file:read(length)
      if at % every == first then requests[#requests + 1] = request end
      at = at + 1
   end
   file:close()
   return requests
end

function init(args)
   chained = args[2] == "chain"
   requests = prepared(args[1], tonumber(args[3]), number)
   if #requests == 0 then requests = prepared(args[1], 1, 0) end
   at = 0
   if chained then
      head = requests[1]:match("^(.-)Content%-Length")
      response = next_of_chain
   end
end

function request()
   if chained then return requests[1] end
   at = at % #requests + 1
   return requests[at]
end

function next_of_chain(status, headers, body)
   local token = body:match('"refresh_token": ?"([^"]+)"')
   if status == 200 and token then
      local asked = '{"refresh_token": "' .. token .. '"}'
      requests[1] = head .. "Content-Length: " .. #asked .. "\r\n\r\n" .. asked
   end
end

function done(summary, latency, _)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %f, "status": %d, "broken": %d, "p50": %f, "p99": %f}\n',
      summary.requests, summary.duration / 1e6, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
