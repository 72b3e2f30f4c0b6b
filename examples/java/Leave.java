import com.sun.net.httpserver.Filter;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;

/** Takes leave of the clients: from TERM on every answer says Connection: close, and the server is stopped after a linger. */
final class Leave extends Filter {
    private static final long LINGER = 1000; // ms in which clients make one more request, whose answer tells them
    private static final int LONGEST = 20; // s that a request may take after that

    private volatile boolean leaving;
    private int requests; // that run

    /** The filter has to be put before every context of the server. */
    Leave(HttpServer server) {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(server)));
    }

    private void stop(HttpServer server) {
        leaving = true;
        try {
            Thread.sleep(LINGER);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        server.stop(running() ? LONGEST : 0);
    }

    private synchronized boolean running() {
        return requests > 0;
    }

    private synchronized void count(int n) {
        requests += n;
    }

    @Override
    public void doFilter(HttpExchange exchange, Chain chain) throws IOException {
        count(1);
        try {
            if (leaving) {
                exchange.getResponseHeaders().set("Connection", "close");
            }
            chain.doFilter(exchange);
        } finally {
            count(-1);
        }
    }

    @Override
    public String description() {
        return "says Connection: close while leaving";
    }
}
