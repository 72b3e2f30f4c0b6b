import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;

/** A blocking server socket and a thread for each connection. */
public class SocketAnswer {
    static final String BODY = "g" + System.getenv("ENTRYPOINT_GENERATION") + " served\n";
    static final String HEAD = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + BODY.length() + "\r\n\r\n";

    public static void main(String[] args) throws IOException {
        try (ServerSocket server = new ServerSocket(Integer.parseInt(args[0]), 50, InetAddress.getByName("127.0.0.1"))) {
            while (true) {
                Socket client = server.accept();
                new Thread(() -> answer(client)).start();
            }
        }
    }

    static void answer(Socket client) {
        try (client) {
            BufferedReader in = new BufferedReader(new InputStreamReader(client.getInputStream()));
            String request = in.readLine();
            for (String line = request; line != null && !line.isEmpty(); line = in.readLine()) { }
            if (request == null) {
                return;
            }
            if (request.startsWith("GET /slow")) {
                Thread.sleep(200);
            }
            client.getOutputStream().write((HEAD + BODY).getBytes());
        } catch (IOException | InterruptedException e) {
            System.err.println(e);
        }
    }
}
