%% A process for each connection.
-module(server).
-export([start/1]).

start([Port]) ->
    {ok, Listener} = gen_tcp:listen(list_to_integer(Port),
        [binary, {ip, {127, 0, 0, 1}}, {packet, http_bin}, {active, false}, {reuseaddr, true}, {backlog, 128}]),
    Body = "g" ++ os:getenv("ENTRYPOINT_GENERATION") ++ " served\n",
    loop(Listener, ["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ", integer_to_list(length(Body)), "\r\n\r\n", Body]).

loop(Listener, Answer) ->
    {ok, Client} = gen_tcp:accept(Listener),
    Pid = spawn(fun() -> receive go -> answer(Client, Answer) end end),
    ok = gen_tcp:controlling_process(Client, Pid),
    Pid ! go,
    loop(Listener, Answer).

answer(Client, Answer) ->
    case gen_tcp:recv(Client, 0) of
        {ok, {http_request, 'GET', {abs_path, Path}, _}} -> headers(Client, Path, Answer);
        _ -> gen_tcp:close(Client)
    end.

headers(Client, Path, Answer) ->
    case gen_tcp:recv(Client, 0) of
        {ok, http_eoh} ->
            timer:sleep(delay(Path)),
            ok = gen_tcp:send(Client, Answer),
            gen_tcp:close(Client);
        {ok, _} -> headers(Client, Path, Answer);
        _ -> gen_tcp:close(Client)
    end.

delay(<<"/slow", _/binary>>) -> 200;
delay(_) -> 0.
